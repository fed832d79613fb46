// SPDX-License-Identifier: GPL-2.0

//! Up to 64 neighbours, some of which are pinned.
//!
//! Only those take memory: a word has a bit for each place, and the pages themselves are in a list, in
//! the order of the bits.

use core::ops;

use kernel::prelude::*;

use kernel_ext::mm::{
    PinBatch,
    PinSlot,
    Released, //
};

/// A block of pages.
///
/// A node of the tree, with three pointers and the key, takes 64 bytes.
pub(super) struct Block {
    /// The places whose pages are pinned.
    used: u64,
    /// The pages of these places, each of which has a user.
    slots: KVec<PinSlot>,
}

const _: () = assert!(size_of::<Block>() == 32);

/// Those bits of a word that stand for `places`.
fn mask(places: &ops::Range<u32>) -> u64 {
    let below = |place| u64::MAX.checked_shl(place).unwrap_or(0);
    below(places.start) & !below(places.end)
}

impl Block {
    /// A block without pages, with memory for `count`.
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

    /// The places whose pages are pinned, one bit each.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// The pages that are pinned.
    pub(super) fn slots(&self) -> impl Iterator<Item = &PinSlot> {
        self.slots.iter()
    }

    /// Where in the list the page of `place` is, or would be.
    fn rank(&self, place: u32) -> usize {
        (self.used & mask(&(0..place))).count_ones() as usize
    }

    /// How many of `places` are not pinned, up to the first one that is.
    pub(super) fn free(&self, places: ops::Range<u32>) -> u32 {
        let pinned = self.used & mask(&places);
        pinned.trailing_zeros().min(places.end) - places.start
    }

    /// The pages of `places`, up to the first one that isn't pinned.
    pub(super) fn run(&mut self, places: ops::Range<u32>) -> &mut [PinSlot] {
        let not_pinned = !self.used & mask(&places);
        let end = not_pinned.trailing_zeros().min(places.end);
        let run = self.rank(places.start)..self.rank(end);
        self.slots.get_mut(run).unwrap_or_default()
    }

    /// Puts pages of `batch` into `places`, with one user each: all of them or none.
    ///
    /// # Errors
    ///
    /// `EINVAL` if one is pinned or `batch` has fewer; `ENOMEM`.
    pub(super) fn insert(&mut self, places: ops::Range<u32>, batch: &mut PinBatch<'_>) -> Result {
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

    /// Takes one user off each page of `places` that is pinned. Those that had no other go to
    /// `released`. Returns their places, one bit each.
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

    /// Gives memory back, if most of it isn't needed any more and some can be had to move to.
    fn shrink(&mut self) {
        if self.slots.len() > self.slots.capacity() / 4 {
            return;
        }
        let Ok(mut slots) = KVec::with_capacity(self.slots.len(), GFP_KERNEL_ACCOUNT) else {
            return;
        };
        for slot in self.slots.drain_all() {
            // There is room: it doesn't fail.
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
