// SPDX-License-Identifier: GPL-2.0

//! Pages that drivers of devices without an IOMMU have asked for.
//!
//! Such a driver asks for pages in any order, often for the same one again, and in most cases for
//! neighbours too. Sixteen neighbours share one node of a tree.

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
    PinBatch,
    PinSlot,
    PinnedPage,
    Released, //
};

/// How many neighbours a node holds.
const BLOCK: u64 = 16;

/// How many nodes the pages of one word of a bitmap are in.
const BLOCKS: u64 = 64 / BLOCK;

/// Neighbours.
type Slots = [PinSlot; BLOCK as usize];

/// The pages of one map that drivers have pinned, by their number in the map.
#[derive(Default)]
pub(crate) struct Pins {
    blocks: RBTree<u64, Slots>,
}

/// The parts of `count` pages from `first` on that share a node: its number, and the places in it.
fn parts(first: u64, count: u64) -> impl Iterator<Item = (u64, ops::Range<usize>)> {
    let end = first + count;
    (first / BLOCK..end.div_ceil(BLOCK)).map(move |block| {
        let base = block * BLOCK;
        let from = first.max(base) - base;
        let to = end.min(base + BLOCK) - base;
        (block, from as usize..to as usize)
    })
}

impl Pins {
    /// The node with the slots of `block`, which is made if it isn't there.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    fn make(&mut self, block: u64) -> Result<&mut Slots> {
        match self.blocks.entry(block) {
            Entry::Occupied(slots) => Ok(slots.into_mut()),
            Entry::Vacant(place) => {
                let slots = [const { PinSlot::EMPTY }; BLOCK as usize];
                let memory = RBTreeNodeReservation::new(GFP_KERNEL_ACCOUNT)?;
                Ok(place.insert(slots, memory))
            }
        }
    }

    /// Whether no page is pinned.
    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// How many of `count` pages from `first` on are not pinned, up to the first one that is.
    pub(crate) fn missing(&self, first: u64, count: u64) -> u64 {
        if self.is_empty() {
            return count;
        }
        let mut missing = 0;
        for (block, places) in parts(first, count) {
            let slots = self.blocks.get(&block);
            let part = slots.and_then(|slots| slots.get(places.clone()));
            match part.and_then(|part| part.iter().position(PinSlot::is_used)) {
                Some(place) => return missing + place as u64,
                None => missing += places.len() as u64,
            }
        }
        missing
    }

    /// Adds a user to those of `count` pages from `first` on that are pinned, up to the first one that
    /// isn't, and calls `shared` for each.
    pub(crate) fn share(&mut self, first: u64, count: u64, mut shared: impl FnMut(PinnedPage)) {
        for (block, places) in parts(first, count) {
            let slots = self.blocks.get_mut(&block);
            let Some(part) = slots.and_then(|slots| slots.get_mut(places)) else {
                return;
            };
            for slot in part {
                let Some(page) = slot.share() else {
                    return;
                };
                shared(page);
            }
        }
    }

    /// Adds the pages of `batch`, none of which is here, from number `first` on, with one user, and
    /// calls `added` for each.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or `EINVAL` if one is here; then `batch` has those that were not added.
    pub(crate) fn insert(
        &mut self,
        first: u64,
        batch: &mut PinBatch,
        mut added: impl FnMut(PinnedPage),
    ) -> Result {
        for (block, places) in parts(first, batch.len() as u64) {
            let slots = self.make(block)?.get_mut(places).ok_or(EINVAL)?;
            PinSlot::fill(slots, batch, &mut added);
        }
        if !batch.is_empty() {
            return Err(EINVAL);
        }
        Ok(())
    }

    /// Takes one user off each of `count` pages from `first` on that is pinned. Those that had no other
    /// go to `released`, and `gone` is called with their numbers.
    pub(crate) fn release(
        &mut self,
        first: u64,
        count: u64,
        released: &mut Released,
        mut gone: impl FnMut(u64),
    ) {
        for (block, places) in parts(first, count) {
            let Some(slots) = self.blocks.get_mut(&block) else {
                continue;
            };
            let base = block * BLOCK + places.start as u64;
            for (page, slot) in (base..).zip(slots.get_mut(places).into_iter().flatten()) {
                if slot.release(released) {
                    gone(page);
                }
            }
            if !slots.iter().any(PinSlot::is_used) {
                self.blocks.remove(&block);
            }
        }
    }

    /// Which of the pages `64 * nth` to `64 * nth + 63` are pinned, one bit each.
    pub(crate) fn word(&self, nth: u64) -> u64 {
        let mut word = 0;
        for part in 0..BLOCKS {
            let Some(slots) = self.blocks.get(&(nth * BLOCKS + part)) else {
                continue;
            };
            for (bit, slot) in slots.iter().enumerate() {
                word |= u64::from(slot.is_used()) << (part * BLOCK + bit as u64);
            }
        }
        word
    }

    /// How many pages are pinned.
    pub(crate) fn count(&self) -> usize {
        let slots = self.blocks.values().flatten();
        slots.filter(|slot| slot.is_used()).count()
    }

    /// How many of the pages are charged to the owner.
    pub(crate) fn charged(&self) -> usize {
        let slots = self.blocks.values().flatten();
        slots.filter(|slot| slot.is_charged()).count()
    }
}

#[kunit_tests(vfio_type1_pins)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_pages_once() {
        for (first, count, expected) in [
            (0, 16, &[(0, 0..16)][..]),
            (3, 1, &[(0, 3..4)]),
            (15, 2, &[(0, 15..16), (1, 0..1)]),
            (20, 40, &[(1, 4..16), (2, 0..16), (3, 0..12)]),
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
