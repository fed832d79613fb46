// SPDX-License-Identifier: GPL-2.0

//! Pinned pages with a count of users each, one word a page.

use core::ptr::NonNull;

use kernel::{
    ffi::c_ulong,
    prelude::*, //
};

use crate::bindings;

use super::pin::{
    is_reserved,
    PinBatch,
    PinnedPage, //
};

/// Bits that count users.
const USER_BITS: u32 = 22;

/// The most users.
const MOST: u64 = (1 << USER_BITS) - 1;

/// The bit that says whether the page counts as locked memory.
const CHARGED: u64 = 1 << USER_BITS;

/// The bit that says whether the page was pinned for writing.
const WRITE: u64 = 1 << (USER_BITS + 1);

/// Where the frame's number begins.
const FRAME: u32 = USER_BITS + 2;

/// A page that several users share; the last one gives it back.
///
/// Dropping it unpins the page.
///
/// # Invariants
///
/// From bit 0 on: the number of users; `CHARGED`; `WRITE`; the frame's number. With users, the frame's
/// page is pinned once, and the pin is this value's; without, all bits are 0.
pub struct PinSlot(u64);

impl PinSlot {
    /// Adds the next `count` pages of `batch` to `slots`, with one user each: all of them or none.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `batch` has fewer, `ENOMEM`.
    pub fn fill(slots: &mut KVec<Self>, batch: &mut PinBatch<'_>, count: usize) -> Result {
        if count > batch.len() {
            return Err(EINVAL);
        }
        slots.reserve(count, GFP_KERNEL_ACCOUNT)?;
        let write = if batch.is_write() { WRITE } else { 0 };
        for &page in batch.take_pages(count) {
            // SAFETY: It is a page, which is pinned.
            let charged = if unsafe { is_reserved(page) } {
                0
            } else {
                CHARGED
            };
            // SAFETY: It computes with the address, which is that of a page.
            let frame = unsafe { bindings::kernel_ext_page_to_pfn(page) };
            // INVARIANT: The pin that was the batch's is this value's now.
            slots.push_within_capacity(Self(1 | charged | write | (frame as u64) << FRAME))?;
        }
        Ok(())
    }

    /// Whether there is a page.
    #[inline]
    pub fn is_used(&self) -> bool {
        self.0 != 0
    }

    /// The number of the page's frame.
    #[inline]
    fn frame(&self) -> usize {
        (self.0 >> FRAME) as usize
    }

    /// Whether there is a page, which counts as locked memory.
    pub fn is_charged(&self) -> bool {
        self.0 & CHARGED != 0
    }

    /// The page, for one more user; `None` if there is none, or it has too many users.
    pub fn share(&mut self) -> Option<PinnedPage> {
        if !self.is_used() || self.0 & MOST == MOST {
            return None;
        }
        // INVARIANT: One user more, which doesn't run over as was checked.
        self.0 += 1;
        self.page()
    }

    /// The page, if there is one.
    fn page(&self) -> Option<PinnedPage> {
        if !self.is_used() {
            return None;
        }
        // SAFETY: The frame has a page, which is pinned by the type invariant.
        let page = unsafe { bindings::kernel_ext_pfn_to_page(self.frame()) };
        // SAFETY: The page is pinned until its last user has given it back, by the type invariant.
        Some(unsafe { PinnedPage::new(NonNull::new(page)?) })
    }

    /// Takes one user off each of `slots`, 64 at most. The pages of those that had no other go to
    /// `released`. Returns which, one bit each.
    pub fn release(slots: &mut [Self], released: &mut Released) -> u64 {
        let (mut gone, mut bit) = (0, 1_u64);
        for slot in slots {
            let word = slot.0;
            if word & MOST > 1 {
                // INVARIANT: There are other users.
                slot.0 = word - 1;
            } else if word != 0 {
                // INVARIANT: Empty, as the pin goes to `released`.
                slot.0 = 0;
                released.add(word);
                gone |= bit;
            }
            bit <<= 1;
        }
        gone
    }

    /// Gives the page back, whoever uses it.
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

/// How many pages are unpinned by one call.
const TOGETHER: usize = 32;

/// Pages which nobody uses any more, to be unpinned together.
///
/// # Invariants
///
/// The first `count` of `pages` are pinned, once each, and the pins are this value's.
pub struct Released {
    pages: [*mut bindings::page; TOGETHER],
    count: usize,
    write: bool,
    /// How many pages counted as locked memory.
    charged: usize,
}

impl Default for Released {
    /// No pages.
    fn default() -> Self {
        // INVARIANT: There is no page.
        Self {
            pages: [core::ptr::null_mut(); TOGETHER],
            count: 0,
            write: false,
            charged: 0,
        }
    }
}

impl Released {
    /// Adds the page of a slot with this word, which gives up the pin.
    #[inline]
    fn add(&mut self, word: u64) {
        let write = word & WRITE != 0;
        if self.write != write {
            self.unpin();
            self.write = write;
        }
        self.charged += usize::from(word & CHARGED != 0);
        // SAFETY: The frame has a page, since it is pinned.
        let page = unsafe { bindings::kernel_ext_pfn_to_page((word >> FRAME) as usize) };
        if let Some(slot) = self.pages.get_mut(self.count) {
            *slot = page;
            // INVARIANT: The pin is this value's now.
            self.count += 1;
        }
        if self.count == TOGETHER {
            self.unpin();
        }
    }

    /// Unpins what there is.
    fn unpin(&mut self) {
        // INVARIANT: The pins are given back below.
        let count = core::mem::take(&mut self.count) as c_ulong;
        let pages = self.pages.as_mut_ptr();
        // SAFETY: By the type invariant so many pages were pinned, and the pins were this value's.
        unsafe { bindings::unpin_user_pages_dirty_lock(pages, count, self.write) };
    }

    /// Unpins all pages. Returns how many there were that counted as locked memory.
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
