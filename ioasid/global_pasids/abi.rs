// SPDX-License-Identifier: GPL-2.0

//! The PASIDs that the kernel allocates itself, for shared virtual addressing.
//!
//! C header: [`include/linux/iommu.h`](srctree/include/linux/iommu.h)

use kernel::{
    prelude::*,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

use kernel_ext::{
    bindings,
    mm::cond_resched, //
};

/// The time after which an allocation that may have failed for lack of memory is tried again.
const PAUSE: Delta = Delta::from_millis(20);

/// A dummy device for the allocation of PASIDs from the kernel. Its IOMMU supports the PASIDs below
/// the limit that was passed to `new`.
///
/// The kernel allocates the lowest free PASID that the device's IOMMU supports, from one space for
/// all devices. The only field of the device that it reads is the number of supported PASIDs. A
/// device that is on no bus is therefore sufficient, and PASIDs can be allocated while no device
/// with PASIDs is present.
///
/// # Invariants
///
/// `device.iommu` points at `iommu`.
struct DummyDevice {
    device: KBox<bindings::device>,
    _iommu: KBox<bindings::dev_iommu>,
}

impl DummyDevice {
    /// Creates a device that allocates PASIDs below `limit`.
    fn new(limit: u32) -> Result<Self> {
        let mut iommu = KBox::init(pin_init::init_zeroed::<bindings::dev_iommu>(), GFP_KERNEL)?;
        let mut device = KBox::init(pin_init::init_zeroed::<bindings::device>(), GFP_KERNEL)?;
        iommu.max_pasids = limit;
        // INVARIANT: The contents of a box don't move.
        device.iommu = &mut *iommu;
        Ok(Self {
            device,
            _iommu: iommu,
        })
    }

    /// Allocates the lowest free PASID. Returns `None` if there is none, or no memory: the kernel
    /// does not tell which.
    fn alloc(&mut self) -> Option<u32> {
        // SAFETY: The kernel reads `device.iommu.max_pasids`, which is valid by the type invariant.
        let pasid = unsafe { bindings::iommu_alloc_global_pasid(&mut *self.device) };
        (pasid != u32::MAX).then_some(pasid)
    }

    /// Allocates the lowest free PASID. Returns `None` only if a second attempt after a pause has
    /// failed, too. Sleeps.
    fn alloc_patiently(&mut self) -> Option<u32> {
        self.alloc().or_else(|| {
            fsleep(PAUSE);
            self.alloc()
        })
    }
}

/// PASIDs that were allocated from the kernel's own space, so that the kernel gives them to no one
/// else.
///
/// Dropping it frees them.
///
/// # Invariants
///
/// Exactly the bits of PASIDs that were allocated and not freed are set.
pub(crate) struct GlobalPasids {
    held: KVVec<u64>,
}

impl GlobalPasids {
    /// Allocates all PASIDs from `first` to `end - 1` that are free.
    ///
    /// The kernel only allocates the lowest free PASID, so the PASIDs below `first` are allocated,
    /// too, and freed at the end. Until then, an allocation fails for a device that doesn't support
    /// larger PASIDs. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `ENOSPC` if no PASID of the range can be allocated.
    pub(crate) fn take(first: u32, end: u32) -> Result<Self> {
        let words = end.div_ceil(u64::BITS) as usize;
        let mut pasids = Self {
            held: KVVec::from_elem(0, words, GFP_KERNEL)?,
        };
        let mut dummy = DummyDevice::new(end)?;
        while let Some(pasid) = dummy.alloc_patiently() {
            // INVARIANT: The PASID was allocated; the kernel only allocates PASIDs below `end`.
            pasids.held[pasid as usize / 64] |= 1 << (pasid % 64);
            if pasid == end - 1 {
                break;
            }
            cond_resched();
        }
        pasids.give_back(0, first);
        if pasids.count(first, end) == 0 {
            return Err(ENOSPC);
        }
        Ok(pasids)
    }

    /// Returns whether this value holds the PASID, so that the kernel doesn't use it.
    pub(crate) fn holds(&self, pasid: u32) -> bool {
        let word = self.held.get(pasid as usize / 64);
        word.is_some_and(|word| word & 1 << (pasid % 64) != 0)
    }

    /// Returns how many of the PASIDs from `first` to `end - 1` this value holds.
    pub(crate) fn count(&self, first: u32, end: u32) -> u32 {
        // It is at most `end`.
        (first..end).filter(|&pasid| self.holds(pasid)).count() as u32
    }

    /// Frees the held PASIDs from `first` to `end - 1`. Sleeps.
    pub(crate) fn give_back(&mut self, first: u32, end: u32) {
        for pasid in first..end {
            if self.holds(pasid) {
                // INVARIANT: The PASID is freed below.
                self.held[pasid as usize / 64] &= !(1 << (pasid % 64));
                // SAFETY: By the type invariant the PASID was allocated.
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

#[kunit_tests(ioasid_global_pasids)]
mod tests {
    use super::*;

    #[test]
    fn a_pasid_is_allocated_once() -> Result {
        let held = GlobalPasids::take(5, 10)?;
        assert_eq!((held.count(0, 5), held.count(0, 100)), (0, 5));
        assert_eq!(GlobalPasids::take(5, 10).err(), Some(ENOSPC));
        assert_eq!(GlobalPasids::take(5, 12)?.count(0, 100), 2);
        drop(held);
        assert_eq!(GlobalPasids::take(5, 10)?.count(0, 100), 5);
        Ok(())
    }
}
