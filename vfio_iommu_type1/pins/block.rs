// SPDX-License-Identifier: GPL-2.0

//! A block of up to 64 adjacent pages, some of which are pinned.
//!
//! Only pinned pages take memory: a word has one bit for each place, and a list holds the pages in
//! the order of the bits.

use core::ops;

use kernel::prelude::*;

use kernel_ext::mm::{
    PinSlot,
    Released,
    SlotBatch, //
};

/// A block of pages.
///
/// On 64 bits, a tree node takes 64 bytes, including its three pointers and the key.
pub(super) struct Block {
    /// The places whose pages are pinned, one bit per place.
    used: u64,
    /// The pages in these places. Each has at least one user.
    slots: KVec<PinSlot>,
}

#[cfg(CONFIG_64BIT)]
const _: () = assert!(size_of::<Block>() == 32);

/// Returns the bits of a word that stand for `places`.
fn mask(places: &ops::Range<u32>) -> u64 {
    let below = |place| u64::MAX.checked_shl(place).unwrap_or(0);
    below(places.start) & !below(places.end)
}

impl Block {
    /// Creates a block without pages, with memory for `count`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(count: usize) -> Result<Self> {
        Ok(Self {
            used: 0,
            slots: KVec::with_capacity(count, GFP_KERNEL_ACCOUNT)?,
        })
    }

    /// Returns the places whose pages are pinned, one bit per place.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// Returns the pinned pages.
    pub(super) fn slots(&self) -> impl Iterator<Item = &PinSlot> {
        self.slots.iter()
    }

    /// Like [`slots`](Self::slots), but mutable.
    pub(super) fn slots_mut(&mut self) -> impl Iterator<Item = &mut PinSlot> {
        self.slots.iter_mut()
    }

    /// Returns the index in the list at which the page of `place` is, or would be.
    fn rank(&self, place: u32) -> usize {
        (self.used & mask(&(0..place))).count_ones() as usize
    }

    /// Returns how many of `places` are not pinned, up to the first one that is.
    pub(super) fn free(&self, places: ops::Range<u32>) -> u32 {
        let pinned = self.used & mask(&places);
        pinned.trailing_zeros().min(places.end) - places.start
    }

    /// Returns the pages in `places`, up to the first place that is not pinned.
    pub(super) fn run(&mut self, places: ops::Range<u32>) -> &mut [PinSlot] {
        let not_pinned = !self.used & mask(&places);
        let end = not_pinned.trailing_zeros().min(places.end);
        let run = self.rank(places.start)..self.rank(end);
        self.slots.get_mut(run).unwrap_or_default()
    }

    /// Moves pages of `batch` to `places`, each with one user: all of them or none.
    ///
    /// # Errors
    ///
    /// `EINVAL` if a page in `places` is pinned or `batch` has fewer pages; `ENOMEM`.
    pub(super) fn insert(&mut self, places: ops::Range<u32>, batch: &mut SlotBatch<'_>) -> Result {
        let added = mask(&places);
        if self.used & added != 0 {
            return Err(EINVAL);
        }
        PinSlot::fill(&mut self.slots, batch, places.len())?;
        let place = self.rank(places.start);
        if let Some(later @ [_, ..]) = self.slots.get_mut(place..) {
            later.rotate_right(places.len());
        }
        self.used |= added;
        Ok(())
    }

    /// Removes one user from each page in `places` that is pinned. Pages without a remaining user
    /// go to `released`. Returns their places, one bit per place.
    pub(super) fn release(&mut self, places: ops::Range<u32>, released: &mut Released) -> u64 {
        let mut left = self.used & mask(&places);
        let mut gone = 0;
        while left != 0 {
            let start = left.trailing_zeros();
            let end = start + (left >> start).trailing_ones();
            gone |= PinSlot::release(self.run(start..end), released) << start;
            left &= !mask(&(start..end));
        }
        self.used &= !gone;
        if gone != 0 && self.used != 0 {
            self.slots.retain(|slot| slot.is_used());
            self.shrink();
        }
        gone
    }

    /// Shrinks the list if most of its memory is unused and a smaller list can be allocated.
    fn shrink(&mut self) {
        if self.slots.len() > self.slots.capacity() / 4 {
            return;
        }
        let Ok(mut slots) = KVec::with_capacity(self.slots.len(), GFP_KERNEL_ACCOUNT) else {
            return;
        };
        for slot in self.slots.drain_all() {
            // This cannot fail: the capacity is sufficient.
            let _ = slots.push_within_capacity(slot);
        }
        self.slots = slots;
    }
}

#[kunit_tests(vfio_type1_block)]
mod tests {
    use super::*;

    fn with(used: u64) -> Result<Block> {
        Ok(Block {
            used,
            ..Block::new(0)?
        })
    }

    #[test]
    fn masks() {
        for (places, expected) in [
            (0..64, u64::MAX),
            (0..0, 0),
            (64..64, 0),
            (63..64, 1 << 63),
            (4..8, 0xf0),
        ] {
            assert_eq!(mask(&places), expected);
        }
    }

    #[test]
    fn free_places_end_at_a_page() -> Result {
        let block = with(1 << 5 | 1 << 63)?;
        assert_eq!(block.free(0..64), 5);
        assert_eq!(block.free(5..6), 0);
        assert_eq!(block.free(6..20), 14);
        assert_eq!(block.free(6..64), 57);
        assert_eq!(with(0)?.free(0..64), 64);
        Ok(())
    }

    #[test]
    fn ranks_count_pages_before() -> Result {
        let block = with(0b1011)?;
        for (place, expected) in [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (64, 3)] {
            assert_eq!(block.rank(place), expected);
        }
        Ok(())
    }
}
