// SPDX-License-Identifier: GPL-2.0

//! Pages that drivers of devices without an IOMMU have asked for.
//!
//! Such a driver asks for single pages in any order, often for the same one again, and in most cases
//! for neighbours too. Sixteen neighbours share one node of a tree.

use kernel::{
    prelude::*,
    rbtree::RBTree, //
};

use kernel_ext::mm::{
    PinSlot,
    PinnedPage,
    PinnedRun, //
};

/// How many neighbours a node holds.
const BLOCK: u64 = 16;

/// How many nodes the pages of one word of a bitmap are in.
const BLOCKS: u64 = 64 / BLOCK;

/// The pages of one map that drivers have pinned, by their number in the map.
#[derive(Default)]
pub(crate) struct Pins {
    blocks: RBTree<u64, KBox<[PinSlot; BLOCK as usize]>>,
}

/// Where page number `page` is: the node and the place in it.
fn place(page: u64) -> (u64, usize) {
    (page / BLOCK, (page % BLOCK) as usize)
}

impl Pins {
    /// The slot of a page, if its node is there.
    fn slot(&mut self, page: u64) -> Option<&mut PinSlot> {
        let (block, nth) = place(page);
        self.blocks.get_mut(&block)?.get_mut(nth)
    }

    /// Makes sure that there is a slot for `page`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    fn prepare(&mut self, page: u64) -> Result {
        let (block, _) = place(page);
        if self.blocks.get(&block).is_none() {
            let slots = KBox::new(
                [const { PinSlot::EMPTY }; BLOCK as usize],
                GFP_KERNEL_ACCOUNT,
            )?;
            self.blocks
                .try_create_and_insert(block, slots, GFP_KERNEL_ACCOUNT)?;
        }
        Ok(())
    }

    /// Whether no page is pinned.
    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// A page that is pinned already, for one more user.
    pub(crate) fn share(&mut self, page: u64) -> Option<PinnedPage> {
        self.slot(page)?.share()
    }

    /// Adds a page that is not here, with one user.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or `EINVAL` if it is here or `run` isn't one page; then `run` is given back.
    pub(crate) fn insert(&mut self, page: u64, run: PinnedRun) -> Result<PinnedPage> {
        self.prepare(page)?;
        let slot = self.slot(page).ok_or(EINVAL)?;
        slot.fill(run).map_err(|_| EINVAL)?;
        slot.page().ok_or(EINVAL)
    }

    /// Takes one user off a page. Returns the page when that was the last one.
    pub(crate) fn release(&mut self, page: u64) -> Option<PinnedRun> {
        let (block, nth) = place(page);
        let slots = self.blocks.get_mut(&block)?;
        let run = slots.get_mut(nth)?.release()?;
        if slots.iter().all(|slot| !slot.is_used()) {
            self.blocks.remove(&block);
        }
        Some(run)
    }

    /// Whether a page is pinned.
    pub(crate) fn has(&self, page: u64) -> bool {
        let (block, nth) = place(page);
        let slots = self.blocks.get(&block);
        slots
            .and_then(|slots| slots.get(nth))
            .is_some_and(PinSlot::is_used)
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

    /// How many of the pages are charged to the owner.
    pub(crate) fn charged(&self) -> usize {
        let slots = self.blocks.values().flat_map(|slots| slots.iter());
        slots.filter(|slot| slot.is_charged()).count()
    }
}
