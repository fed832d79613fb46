// SPDX-License-Identifier: GPL-2.0

//! Pages that device drivers have pinned through the container.
//!
//! A driver pins pages in any order, often the same page again, and usually adjacent pages too.
//! The pages of a block of 64 share one node of a tree.

mod block;

use core::ops;

use kernel::{
    prelude::*,
    rbtree::{
        Entry,
        RBTree,
        RBTreeNodeReservation, //
    }, //
};

use kernel_ext::mm::{
    PinSlot,
    PinnedPage,
    Released,
    SlotBatch, //
};

use self::block::Block;

/// The number of pages in a block: one for each bit of a word.
const BLOCK: u64 = 64;

/// The pages of one mapping that drivers have pinned, by their index in the mapping.
#[derive(Default)]
pub(crate) struct Pins {
    /// The blocks in which at least one page is pinned.
    blocks: RBTree<u64, Block>,
}

/// Splits `count` pages starting at `first` by block. Yields the number of each block and the
/// places in it.
fn parts(first: u64, count: u64) -> impl Iterator<Item = (u64, ops::Range<u32>)> {
    let end = first + count;
    (first / BLOCK..end.div_ceil(BLOCK)).map(move |block| {
        let base = block * BLOCK;
        let from = first.max(base) - base;
        let to = end.min(base + BLOCK) - base;
        (block, from as u32..to as u32)
    })
}

impl Pins {
    /// Returns the node of `block`. Creates it, with memory for `count` pages, if it does not
    /// exist.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    fn make(&mut self, block: u64, count: usize) -> Result<&mut Block> {
        match self.blocks.entry(block) {
            Entry::Occupied(found) => Ok(found.into_mut()),
            Entry::Vacant(place) => {
                let memory = RBTreeNodeReservation::new(GFP_KERNEL_ACCOUNT)?;
                Ok(place.insert(Block::new(count)?, memory))
            }
        }
    }

    /// Returns whether no page is pinned.
    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Returns how many of `count` pages starting at `first` are not pinned, up to the first one
    /// that is.
    pub(crate) fn missing(&self, first: u64, count: u64) -> u64 {
        if self.is_empty() {
            return count;
        }
        let mut missing = 0;
        for (block, places) in parts(first, count) {
            let pages = places.len() as u64;
            let found = self.blocks.get(&block);
            let free = found.map_or(pages, |found| u64::from(found.free(places)));
            missing += free;
            if free < pages {
                break;
            }
        }
        missing
    }

    /// Adds a user to each of `count` pages starting at `first`, up to the first one that is not
    /// pinned, and calls `shared` for each.
    pub(crate) fn share(&mut self, first: u64, count: u64, mut shared: impl FnMut(PinnedPage<'_>)) {
        if self.is_empty() {
            return;
        }
        for (block, places) in parts(first, count) {
            let Some(found) = self.blocks.get_mut(&block) else {
                return;
            };
            let pages = places.len();
            let slots = found.run(places);
            let all = slots.len() == pages;
            for slot in slots {
                let Some(page) = slot.share() else {
                    return;
                };
                shared(page);
            }
            if !all {
                return;
            }
        }
    }

    /// Adds the pages of `batch` from index `first` on, each with one user. None of them is pinned
    /// yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EINVAL` if one of the pages is already pinned. The pages that were not added
    /// stay in `batch`.
    pub(crate) fn insert(&mut self, first: u64, batch: &mut SlotBatch<'_>) -> Result {
        for (block, places) in parts(first, batch.len() as u64) {
            self.make(block, places.len())?.insert(places, batch)?;
        }
        Ok(())
    }

    /// Removes one user from each of `count` pages starting at `first` that is pinned. Pages
    /// without a remaining user go to `released`. For each block, calls `gone` with the number of
    /// the block and the bits of these pages, in the format of [`word`](Self::word).
    pub(crate) fn release(
        &mut self,
        first: u64,
        count: u64,
        released: &mut Released,
        mut gone: impl FnMut(u64, u64),
    ) {
        for (block, places) in parts(first, count) {
            let Some(found) = self.blocks.get_mut(&block) else {
                continue;
            };
            gone(block, found.release(places, released));
            if found.used() == 0 {
                self.blocks.remove(&block);
            }
        }
    }

    /// Returns which of the pages `64 * nth` to `64 * nth + 63` are pinned, one bit per page.
    pub(crate) fn word(&self, nth: u64) -> u64 {
        self.blocks.get(&nth).map_or(0, Block::used)
    }

    /// Returns the number of pinned pages.
    pub(crate) fn count(&self) -> usize {
        let pinned = |block: &Block| block.used().count_ones() as usize;
        self.blocks.values().map(pinned).sum()
    }

    /// Returns the number of pinned pages that are charged to the owner.
    pub(crate) fn charged(&self) -> usize {
        let slots = self.blocks.values().flat_map(Block::slots);
        slots.filter(|slot| slot.is_charged()).count()
    }

    /// Stops counting `count` of the charged pages as charged.
    pub(crate) fn exempt(&mut self, count: usize) {
        let slots = self.blocks.values_mut().flat_map(Block::slots_mut);
        let charged = slots.filter(|slot| slot.is_charged());
        charged.take(count).for_each(PinSlot::exempt);
    }
}

#[kunit_tests(vfio_type1_pins)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_pages_once() {
        for (first, count, expected) in [
            (0, 64, &[(0, 0..64)][..]),
            (3, 1, &[(0, 3..4)]),
            (63, 2, &[(0, 63..64), (1, 0..1)]),
            (80, 120, &[(1, 16..64), (2, 0..64), (3, 0..8)]),
        ] {
            assert!(parts(first, count).eq(expected.iter().cloned()));
        }
    }

    #[test]
    fn nothing_is_pinned() {
        let pins = Pins::default();
        assert_eq!(pins.missing(3, 100), 100);
        assert_eq!((pins.word(0), pins.count(), pins.charged()), (0, 0, 0));
    }
}
