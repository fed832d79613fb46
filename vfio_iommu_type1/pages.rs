// SPDX-License-Identifier: GPL-2.0

//! The pages of a mapping: those in the IOMMU, those that drivers have pinned, and those that are
//! dirty.

#[allow(unsafe_code)]
mod abi;
mod pin_map;

use kernel::{
    prelude::*,
    sync::Arc, //
};

use kernel_ext::{
    iommu::{
        Domains,
        Mapping, //
    },
    mm::{
        Charge,
        MemoryCgroup,
        Released,
        SlotBatch, //
    }, //
};

use crate::{
    dirty::bitmap::Dirty,
    pins::Pins,
    space::{
        Dma,
        Pages, //
    }, //
};

pub(crate) use self::abi::extend_all;

use self::pin_map::PinMapResult;

/// The pages of a mapping. Dropping the value unmaps, unpins and uncharges them, in this order,
/// and may take long.
///
/// Drivers pin and write pages in kernel threads too. The records of these pages are therefore
/// charged to the memory cgroup of the process that mapped, not to that of the calling thread.
pub(crate) struct DmaPages {
    /// The pages in the IOMMU; empty if the container has no IOMMU.
    mapping: Mapping,
    /// The pages that drivers have pinned, and those that are dirty.
    tracked: Option<KBox<Tracked>>,
    /// The pages that are charged to the process.
    pub(crate) charge: Charge,
}

/// A tree node, with its three pointers and the key, takes no more memory than a `struct
/// vfio_dma`: 96 bytes.
const _: () = assert!(size_of::<Dma<DmaPages>>() + 32 <= 96);

/// The pages that drivers have pinned, and those that they or the kernel have written.
#[derive(Default)]
struct Tracked {
    pins: Pins,
    /// The dirty pages, except those in `pins`.
    dirty: Dirty,
}

impl DmaPages {
    /// Returns the pages in the IOMMU.
    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// Unmaps the pages from all domains except `domains`, which are some of the current ones. If
    /// none is left, unpins and uncharges them as [`unmap`](Self::unmap) does.
    pub(crate) fn shrink(&mut self, domains: &Arc<Domains>) {
        if domains.is_empty() {
            self.unmap();
        }
        self.mapping.shrink(domains);
    }

    /// Allocates the memory for recording dirty pages.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn reserve_dirty(&mut self) -> Result {
        self.make_tracked()?;
        Ok(())
    }

    /// Returns the records, and the cgroup to charge for memory that they need.
    fn make_tracked(&mut self) -> Result<(&mut Tracked, &MemoryCgroup)> {
        let cgroup = self.charge.owner().cgroup();
        if self.tracked.is_none() {
            let tracked = cgroup.charge(|| KBox::new(Tracked::default(), GFP_KERNEL_ACCOUNT))?;
            self.tracked = Some(tracked);
        }
        Ok((self.tracked.as_deref_mut().ok_or(ENOMEM)?, cgroup))
    }

    /// Returns which of the pages `64 * nth` to `64 * nth + 63` are dirty or pinned by drivers,
    /// one bit per page.
    pub(crate) fn dirty_word(&self, nth: u64) -> u64 {
        let tracked = self.tracked.as_ref();
        tracked.map_or(0, |tracked| {
            tracked.dirty.word(nth) | tracked.pins.word(nth)
        })
    }

    /// Returns whether no page is dirty or pinned by a driver.
    pub(crate) fn is_clean(&self) -> bool {
        let tracked = self.tracked.as_ref();
        tracked
            .is_none_or(|tracked| matches!(tracked.dirty, Dirty::Clean) && tracked.pins.is_empty())
    }

    /// Marks all pages as dirty. Does nothing if no memory was reserved, because dirty tracking is
    /// disabled then.
    pub(crate) fn set_all_dirty(&mut self) {
        if let Some(tracked) = &mut self.tracked {
            tracked.dirty = Dirty::All;
        }
    }

    /// Discards the recorded dirty pages.
    pub(crate) fn set_clean(&mut self) {
        if let Some(tracked) = &mut self.tracked {
            tracked.dirty = Dirty::Clean;
        }
    }

    /// Discards the recorded dirty pages, and frees the memory for them unless pins need it.
    pub(crate) fn stop_tracking(&mut self) {
        self.set_clean();
        self.tracked.take_if(|tracked| tracked.pins.is_empty());
    }

    /// Records that `count` pages starting at `first` were written. The mapping has `pages` pages.
    /// Does nothing if no memory was reserved, because dirty tracking is disabled then.
    pub(crate) fn add_dirty(&mut self, first: u64, count: u64, pages: u64) {
        if let Some(tracked) = &mut self.tracked {
            let cgroup = self.charge.owner().cgroup();
            cgroup.charge(|| tracked.dirty.add(first, count, pages));
        }
    }

    /// Removes one user from each of `count` pages starting at `first` that drivers have pinned.
    /// Pages without a remaining user are unpinned. They are recorded as dirty if `track` is set,
    /// to the number of pages in the mapping, and uncharged if `charges` is set.
    pub(crate) fn release_pins(
        &mut self,
        first: u64,
        count: u64,
        track: Option<u64>,
        charges: bool,
    ) {
        let mut released = Released::default();
        if let Some(tracked) = &mut self.tracked {
            let Tracked { pins, dirty } = &mut **tracked;
            let gone = |nth, bits| {
                if let Some(pages) = track {
                    dirty.add_word(nth, bits, pages);
                }
            };
            let cgroup = self.charge.owner().cgroup();
            cgroup.charge(|| pins.release(first, count, &mut released, gone));
        }
        let charged = released.finish();
        if charges {
            self.charge.sub(charged);
        }
    }

    /// Returns the pages that drivers have pinned, or `None` if no memory is allocated for them.
    pub(crate) fn pins_mut(&mut self) -> Option<&mut Pins> {
        self.tracked.as_mut().map(|tracked| &mut tracked.pins)
    }

    /// Adds the pages of `batch` from index `first` on to those that drivers have pinned.
    ///
    /// # Errors
    ///
    /// Those of [`Pins::insert`].
    pub(crate) fn add_pins(&mut self, first: u64, batch: &mut SlotBatch<'_>) -> Result {
        let (tracked, cgroup) = self.make_tracked()?;
        cgroup.charge(|| tracked.pins.insert(first, batch))
    }

    /// Returns the pages that drivers have pinned, or `None` if there are none.
    pub(crate) fn pins(&self) -> Option<&Pins> {
        let pins = self.tracked.as_ref().map(|tracked| &tracked.pins);
        pins.filter(|pins| !pins.is_empty())
    }

    /// Unmaps the pages from the IOMMU. Pages that drivers have pinned stay pinned and charged.
    ///
    /// Some of the pinned pages may not be charged yet: a mapping of MMIO is not charged, and the
    /// process may have replaced the MMIO by memory, which drivers can pin. These pages are charged
    /// now. If that fails, for example over the limit, they stay uncharged until they are unpinned.
    fn unmap(&mut self) {
        self.mapping.clear();
        let kept = self.pins().map_or(0, Pins::charged);
        let charged = self.charge.pages();
        self.charge.sub(charged.saturating_sub(kept));
        let missing = kept.saturating_sub(charged);
        if self.charge.try_add(missing).is_err() {
            if let Some(pins) = self.pins_mut() {
                pins.exempt(missing);
            }
        }
    }
}

impl Pages for DmaPages {
    fn start(&self) -> u64 {
        self.mapping.iova()
    }

    fn join(&mut self, next: Self) -> Result<(), Self> {
        if next.tracked.is_some() || !self.charge.has_owner_of(&next.charge) {
            return Err(next);
        }
        let Self {
            mapping,
            tracked,
            charge,
        } = next;
        match self.mapping.join(mapping) {
            Ok(()) => {
                self.charge.join(charge);
                Ok(())
            }
            Err(mapping) => Err(Self {
                mapping,
                tracked,
                charge,
            }),
        }
    }
}
