// SPDX-License-Identifier: GPL-2.0

//! The PASIDs which the kernel hands out itself, for shared virtual addressing.
//!
//! C header: [`include/linux/iommu.h`](srctree/include/linux/iommu.h)

use kernel::prelude::*;

use crate::{
    bindings,
    mm::cond_resched, //
};

/// A device that exists to draw PASIDs from the kernel: it has an IOMMU that knows `limit` of them.
///
/// The kernel draws the lowest free PASID that a device's IOMMU knows, from one space for all
/// devices. It reads nothing of the device but that number, so one which is on no bus will do, and
/// PASIDs can be drawn where no device with PASIDs is present (yet).
///
/// # Invariants
///
/// `device.iommu` points at `iommu`.
struct Drawer {
    device: KBox<bindings::device>,
    _iommu: KBox<bindings::dev_iommu>,
}

impl Drawer {
    /// A device that draws PASIDs below `limit`.
    fn new(limit: u32) -> Result<Self> {
        let mut iommu = KBox::init(pin_init::init_zeroed::<bindings::dev_iommu>(), GFP_KERNEL)?;
        let mut device = KBox::init(pin_init::init_zeroed::<bindings::device>(), GFP_KERNEL)?;
        iommu.max_pasids = limit;
        // INVARIANT: Boxes stay where they are.
        device.iommu = &mut *iommu;
        Ok(Self {
            device,
            _iommu: iommu,
        })
    }

    /// The lowest PASID that nobody has.
    fn draw(&mut self) -> Option<u32> {
        // SAFETY: The kernel reads `device.iommu.max_pasids`, which is there by the type invariant.
        let pasid = unsafe { bindings::iommu_alloc_global_pasid(&mut *self.device) };
        (pasid != u32::MAX).then_some(pasid)
    }
}

/// PASIDs that were taken out of the kernel's own space, so that it hands none of them out.
///
/// Dropping it gives them back.
///
/// # Invariants
///
/// The bits that are set are those of PASIDs which were drawn and not given back.
pub struct GlobalPasids {
    held: KVVec<u64>,
}

impl GlobalPasids {
    /// Takes all PASIDs from `first` to `end - 1` that the kernel has not handed out.
    ///
    /// The kernel gives the lowest one only, so those below `first` are drawn too, and given back at
    /// the end. Until then a device that knows none above finds none. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn take(first: u32, end: u32) -> Result<Self> {
        let words = end.div_ceil(u64::BITS) as usize;
        let mut pasids = Self {
            held: KVVec::from_elem(0, words, GFP_KERNEL)?,
        };
        let mut drawer = Drawer::new(end)?;
        while let Some(pasid) = drawer.draw() {
            // INVARIANT: It was drawn; the kernel gives none that is not below `end`.
            pasids.held[pasid as usize / 64] |= 1 << (pasid % 64);
            cond_resched();
        }
        pasids.give_back(0, first);
        Ok(pasids)
    }

    /// Whether this PASID is held, and hence not the kernel's.
    pub fn holds(&self, pasid: u32) -> bool {
        let word = self.held.get(pasid as usize / 64);
        word.is_some_and(|word| word & 1 << (pasid % 64) != 0)
    }

    /// Gives back those from `first` to `end - 1`. Sleeps.
    pub fn give_back(&mut self, first: u32, end: u32) {
        for pasid in first..end {
            if self.holds(pasid) {
                // INVARIANT: It is given back now.
                self.held[pasid as usize / 64] &= !(1 << (pasid % 64));
                // SAFETY: It was drawn, by the type invariant.
                unsafe { bindings::iommu_free_global_pasid(pasid) };
                cond_resched();
            }
        }
    }
}

impl Drop for GlobalPasids {
    fn drop(&mut self) {
        let end = self.held.len().saturating_mul(u64::BITS as usize);
        self.give_back(0, u32::try_from(end).unwrap_or(u32::MAX));
    }
}
