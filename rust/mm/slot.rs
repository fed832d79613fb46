// SPDX-License-Identifier: GPL-2.0

//! Pinned pages, each with a count of its users, in one word per page.

use core::{
    ops::Deref,
    ptr::NonNull, //
};

use kernel::{
    ffi::c_ulong,
    mm::MmWithUser,
    prelude::*, //
};

use crate::bindings;

use super::pin::{
    is_reserved,
    PinBatch,
    PinnedPage, //
};

/// Number of bits of the count of users.
const USER_BITS: u32 = 22;

/// Maximum number of users.
const MOST: u64 = (1 << USER_BITS) - 1;

/// The bit that is set if the page counts as locked memory.
const CHARGED: u64 = 1 << USER_BITS;

/// The bit that is set if the page was pinned for writing.
const WRITE: u64 = 1 << (USER_BITS + 1);

/// The first bit of the frame number.
const FRAME: u32 = USER_BITS + 2;

/// A batch that stores its pages in an array for somebody else, who uses those that were removed
/// from the batch. They can only be removed to a [`PinSlot`], which keeps them pinned.
pub struct SlotBatch<'a>(PinBatch<'a>);

impl<'a> Deref for SlotBatch<'a> {
    type Target = PinBatch<'a>;

    fn deref(&self) -> &PinBatch<'a> {
        &self.0
    }
}

impl<'a> SlotBatch<'a> {
    /// Creates a batch that stores its pages in `pages`.
    pub(crate) fn new(pages: &'a mut [*mut bindings::page]) -> Self {
        Self(PinBatch::borrowed(pages))
    }

    /// As [`PinBatch::fill`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn fill(&mut self, start: usize, count: usize, write: bool) -> Result<usize> {
        self.0.fill(start, count, write)
    }

    /// As [`PinBatch::fill_remote`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn fill_remote(
        &mut self,
        mm: &MmWithUser,
        start: usize,
        count: usize,
        write: bool,
    ) -> Result<usize> {
        self.0.fill_remote(mm, start, count, write)
    }
}

/// A page that several users share; it is unpinned when the last user releases it.
///
/// Dropping the slot unpins the page, even if it has users.
///
/// # Invariants
///
/// Starting at bit 0: the number of users; `CHARGED`; `WRITE`; the frame number. If there are
/// users, the page of the frame is pinned once, and this value owns the pin. If there are none, all
/// bits are 0.
pub struct PinSlot(u64);

impl PinSlot {
    /// Removes the next `count` pages from `batch` and adds them to `slots`, with one user each.
    /// Adds all of them or none.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `batch` has fewer pages; `ENOMEM`.
    pub fn fill(slots: &mut KVec<Self>, batch: &mut SlotBatch<'_>, count: usize) -> Result {
        if count > batch.len() {
            return Err(EINVAL);
        }
        slots.reserve(count, GFP_KERNEL_ACCOUNT)?;
        let write = if batch.is_write() { WRITE } else { 0 };
        for &page in batch.0.take_pages(count) {
            // SAFETY: `page` is a page, and it is pinned.
            let charged = if unsafe { is_reserved(page) } {
                0
            } else {
                CHARGED
            };
            // SAFETY: The function only computes with the address, which is that of a page.
            let frame = unsafe { bindings::kernel_ext_page_to_pfn(page) };
            // INVARIANT: The batch owned the pin; this value owns it now.
            slots.push_within_capacity(Self(1 | charged | write | (frame as u64) << FRAME))?;
        }
        Ok(())
    }

    /// Returns whether the slot holds a page.
    #[inline]
    pub fn is_used(&self) -> bool {
        self.0 != 0
    }

    /// Returns the frame number of the page.
    #[inline]
    fn frame(&self) -> usize {
        (self.0 >> FRAME) as usize
    }

    /// Returns whether the slot holds a page that counts as locked memory.
    pub fn is_charged(&self) -> bool {
        self.0 & CHARGED != 0
    }

    /// Stops counting the page as locked memory.
    pub fn exempt(&mut self) {
        self.0 &= !CHARGED;
    }

    /// Adds a user and returns the page. Returns `None` if the slot holds no page, or the page has
    /// the maximum number of users.
    pub fn share(&mut self) -> Option<PinnedPage<'_>> {
        if !self.is_used() || self.0 & MOST == MOST {
            return None;
        }
        // INVARIANT: There is one more user; the check above rules out an overflow.
        self.0 += 1;
        self.page()
    }

    /// Returns the page, if the slot holds one.
    fn page(&self) -> Option<PinnedPage<'_>> {
        if !self.is_used() {
            return None;
        }
        // SAFETY: The frame has a page, which is pinned by the type invariant.
        let page = unsafe { bindings::kernel_ext_pfn_to_page(self.frame()) };
        // SAFETY: By the type invariant the page is pinned as long as the slot holds it.
        Some(unsafe { PinnedPage::new(NonNull::new(page)?) })
    }

    /// Removes one user from each of `slots`, of which there are at most 64. The page of a slot
    /// without another user goes to `released`. Returns a bitmap of these slots.
    pub fn release(slots: &mut [Self], released: &mut Released) -> u64 {
        let (mut gone, mut bit) = (0, 1_u64);
        for slot in slots {
            let word = slot.0;
            if word & MOST > 1 {
                // INVARIANT: There are other users, so the page stays pinned.
                slot.0 = word - 1;
            } else if word != 0 {
                // INVARIANT: The slot is empty, because the pin goes to `released`.
                slot.0 = 0;
                released.add(word);
                gone |= bit;
            }
            bit <<= 1;
        }
        gone
    }

    /// Unpins the page, even if it has users.
    #[cold]
    fn give_back(&mut self) {
        let mut released = Released::default();
        while self.is_used() {
            Self::release(core::slice::from_mut(self), &mut released);
        }
    }
}

impl Drop for PinSlot {
    #[inline]
    fn drop(&mut self) {
        if self.is_used() {
            self.give_back();
        }
    }
}

/// Number of pages that are unpinned by one call.
const UNPIN_BATCH_PAGES: usize = 32;

/// Pages that have no users any more and will be unpinned together.
///
/// # Invariants
///
/// The first `count` of `pages` are pinned, once each, and this value owns the pins.
pub struct Released {
    pages: [*mut bindings::page; UNPIN_BATCH_PAGES],
    count: usize,
    write: bool,
    /// Number of added pages that counted as locked memory, including those that were already
    /// unpinned.
    charged: usize,
}

impl Default for Released {
    /// Creates a value without pages.
    fn default() -> Self {
        // INVARIANT: There are no pages.
        Self {
            pages: [core::ptr::null_mut(); UNPIN_BATCH_PAGES],
            count: 0,
            write: false,
            charged: 0,
        }
    }
}

impl Released {
    /// Adds the page of a slot whose word was `word`. The slot gives up its pin.
    #[inline]
    fn add(&mut self, word: u64) {
        let write = word & WRITE != 0;
        if self.write != write {
            self.unpin();
            self.write = write;
        }
        self.charged += usize::from(word & CHARGED != 0);
        // SAFETY: The frame has a page, because it is pinned.
        let page = unsafe { bindings::kernel_ext_pfn_to_page((word >> FRAME) as usize) };
        if let Some(slot) = self.pages.get_mut(self.count) {
            *slot = page;
            // INVARIANT: This value owns the pin now.
            self.count += 1;
        }
        if self.count == UNPIN_BATCH_PAGES {
            self.unpin();
        }
    }

    /// Unpins the pages that have been added.
    fn unpin(&mut self) {
        // INVARIANT: The pins are released below.
        let count = core::mem::take(&mut self.count) as c_ulong;
        let pages = self.pages.as_mut_ptr();
        // SAFETY: By the type invariant `count` pages were pinned, and this value owned the pins.
        unsafe { bindings::unpin_user_pages_dirty_lock(pages, count, self.write) };
    }

    /// Unpins all pages. Returns the number of added pages that counted as locked memory.
    pub fn finish(mut self) -> usize {
        self.unpin();
        self.charged
    }
}

impl Drop for Released {
    fn drop(&mut self) {
        self.unpin();
    }
}
