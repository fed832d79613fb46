// SPDX-License-Identifier: GPL-2.0

//! The pages of a mapping: what the IOMMU sees, what drivers have pinned, what was written.

use kernel::prelude::*;

use kernel_ext::{
    iommu::Mapping,
    mm::{
        Charge,
        Released, //
    }, //
};

use crate::{
    bitmap::Dirty,
    pins::Pins,
    space::{
        Dma,
        Pages, //
    }, //
};

/// The pages of a mapping. Dropping it unmaps, unpins and uncharges, in this order, and may take long.
pub(crate) struct DmaPages {
    /// What the IOMMU sees; empty if the container has no IOMMU.
    pub(crate) mapping: Mapping,
    /// What emulated devices use, and what was written.
    tracked: Option<KBox<Tracked>>,
    /// What the program's process is charged with.
    pub(crate) charge: Charge,
}

/// A node of the tree, with three pointers and the key, fits the memory that the kernel's own takes.
const _: () = assert!(size_of::<Dma<DmaPages>>() + 32 <= 96);

/// What emulated devices and the kernel do with a mapping.
#[derive(Default)]
struct Tracked {
    pins: Pins,
    /// The pages that were written, but for those in `pins`.
    dirty: Dirty,
}

impl DmaPages {
    /// The pages of a new mapping.
    pub(crate) fn new(mapping: Mapping, charge: Charge) -> Self {
        Self {
            mapping,
            tracked: None,
            charge,
        }
    }

    /// Makes room to note which pages are written.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn reserve_dirty(&mut self) -> Result {
        self.make_tracked()?;
        Ok(())
    }

    fn make_tracked(&mut self) -> Result<&mut Tracked> {
        if self.tracked.is_none() {
            self.tracked = Some(KBox::new(Tracked::default(), GFP_KERNEL_ACCOUNT)?);
        }
        self.tracked.as_deref_mut().ok_or(ENOMEM)
    }

    /// Which of the pages `64 * nth` to `64 * nth + 63` were written or are pinned by drivers, one bit each.
    pub(crate) fn dirty_word(&self, nth: u64) -> u64 {
        let tracked = self.tracked.as_ref();
        tracked.map_or(0, |tracked| {
            tracked.dirty.word(nth) | tracked.pins.word(nth)
        })
    }

    /// Whether no page was written, nor is pinned by a driver.
    pub(crate) fn is_clean(&self) -> bool {
        let tracked = self.tracked.as_ref();
        tracked
            .is_none_or(|tracked| matches!(tracked.dirty, Dirty::Clean) && tracked.pins.is_empty())
    }

    /// Counts all pages as written. Without room to note that nobody will ask.
    pub(crate) fn set_all_dirty(&mut self) {
        if let Some(tracked) = &mut self.tracked {
            tracked.dirty = Dirty::All;
        }
    }

    /// Forgets which pages were written.
    pub(crate) fn set_clean(&mut self) {
        if let Some(tracked) = &mut self.tracked {
            tracked.dirty = Dirty::Clean;
        }
    }

    /// Forgets which pages were written, and gives back the room to note that, if nothing else needs it.
    pub(crate) fn stop_tracking(&mut self) {
        self.set_clean();
        self.tracked.take_if(|tracked| tracked.pins.is_empty());
    }

    /// Notes that `count` pages from `first` on were written; the mapping has `pages` pages. Without room to
    /// note that nobody will ask.
    pub(crate) fn add_dirty(&mut self, first: u64, count: u64, pages: u64) {
        if let Some(tracked) = &mut self.tracked {
            tracked.dirty.add(first, count, pages);
        }
    }

    /// Takes one user off each of `count` pages from `first` on that drivers have pinned, and notes as
    /// written those that have none then, if `track` says how many pages the mapping has. Takes these off
    /// what is charged if `charges`.
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
            pins.release(first, count, &mut released, |nth, bits| {
                if let Some(pages) = track {
                    dirty.add_word(nth, bits, pages);
                }
            });
        }
        let charged = released.finish();
        if charges {
            self.charge.sub(charged);
        }
    }

    /// The pages that drivers have pinned, if any ever were.
    pub(crate) fn pins_mut(&mut self) -> Option<&mut Pins> {
        self.tracked.as_mut().map(|tracked| &mut tracked.pins)
    }

    /// The pages that drivers have pinned, to add some.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn make_pins(&mut self) -> Result<&mut Pins> {
        Ok(&mut self.make_tracked()?.pins)
    }

    /// The pages that drivers have pinned, if there are any.
    pub(crate) fn pins(&self) -> Option<&Pins> {
        let pins = self.tracked.as_ref().map(|tracked| &tracked.pins);
        pins.filter(|pins| !pins.is_empty())
    }

    /// Takes the pages out of the IOMMU; those that drivers have pinned stay, and stay charged.
    pub(crate) fn unmap(&mut self) {
        self.mapping.clear();
        let kept = self.pins().map_or(0, Pins::charged);
        self.charge.sub(self.charge.pages().saturating_sub(kept));
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
