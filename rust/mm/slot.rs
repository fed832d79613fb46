// SPDX-License-Identifier: GPL-2.0

//! Pinned pages with a count of users each, one word a page.

use core::ptr::NonNull;

use kernel::ffi::c_ulong;

use crate::bindings;

use super::pin::{
    PinBatch,
    PinnedPage, //
};

/// Bits that count users.
const USER_BITS: u32 = 23;

/// The bit that says whether the page was pinned for writing.
const WRITE: u64 = 1 << USER_BITS;

/// A place for a page that several users share; the last one gives it back.
///
/// Dropping a slot with a page unpins it.
///
/// # Invariants
///
/// From bit 0 on: the number of users; `WRITE`; the frame's number. With users, the frame's page is
/// pinned once, and the pin is this value's; without, all bits are 0.
#[derive(Default)]
pub struct PinSlot(u64);

impl PinSlot {
    /// An empty slot.
    // INVARIANT: No bit is set.
    pub const EMPTY: Self = Self(0);

    /// Whether there is a page.
    #[inline]
    pub fn is_used(&self) -> bool {
        self.0 != 0
    }

    /// The number of the page's frame.
    #[inline]
    fn frame(&self) -> usize {
        (self.0 >> (USER_BITS + 1)) as usize
    }

    /// Whether there is a page, which counts as locked memory.
    pub fn is_charged(&self) -> bool {
        // SAFETY: It only looks at the frame's number and its `struct page`, if there is one.
        self.is_used() && unsafe { bindings::kernel_ext_pfn_is_ram(self.frame()) }
    }

    /// Puts the next pages of `batch` into `slots`, one into each, with one user, and calls `put` for
    /// each of them. Stops at a slot that is in use.
    pub fn fill(slots: &mut [Self], batch: &mut PinBatch, mut put: impl FnMut(PinnedPage)) {
        let free = slots.iter().take_while(|slot| !slot.is_used()).count();
        let write = if batch.is_write() { WRITE } else { 0 };
        for (slot, &page) in slots.iter_mut().zip(batch.take_pages(free)) {
            // SAFETY: It computes with the address, which is that of a page.
            let frame = unsafe { bindings::kernel_ext_page_to_pfn(page) };
            // INVARIANT: The pin that was the batch's is this value's now.
            slot.0 = 1 | write | (frame as u64) << (USER_BITS + 1);
            if let Some(page) = NonNull::new(page) {
                // SAFETY: The page is pinned until its last user has given it back.
                put(unsafe { PinnedPage::new(page) });
            }
        }
    }

    /// The page, for one more user; `None` if there is none, or it has too many users.
    pub fn share(&mut self) -> Option<PinnedPage> {
        if !self.is_used() || self.0 & (WRITE - 1) == WRITE - 1 {
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

    /// Takes one user off, if there is one. When that was the last one the page goes to `released`.
    /// Returns whether it did.
    #[inline]
    pub fn release(&mut self, released: &mut Released) -> bool {
        if !self.is_used() {
            return false;
        }
        // INVARIANT: There is a user, hence one may be taken off.
        self.0 -= 1;
        if self.0 & (WRITE - 1) != 0 {
            return false;
        }
        let (frame, write) = (self.frame(), self.0 & WRITE != 0);
        // INVARIANT: Empty, as the pin goes to `released`.
        self.0 = 0;
        released.add(frame, write);
        true
    }
}

impl Drop for PinSlot {
    fn drop(&mut self) {
        if !self.is_used() {
            return;
        }
        let mut released = Released::new(false);
        while self.is_used() {
            self.release(&mut released);
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
    /// Whether to count those that count as locked memory.
    counts: bool,
    charged: usize,
}

impl Released {
    /// No pages. `counts` says whether [`finish`](Self::finish) has to know about locked memory.
    pub const fn new(counts: bool) -> Self {
        // INVARIANT: There is no page.
        Self {
            pages: [core::ptr::null_mut(); TOGETHER],
            count: 0,
            write: false,
            counts,
            charged: 0,
        }
    }

    /// Adds a page, of which the caller gives up the pin.
    #[inline]
    fn add(&mut self, frame: usize, write: bool) {
        if self.write != write {
            self.unpin();
            self.write = write;
        }
        // SAFETY: The frame has a page, since it is pinned.
        let page = unsafe { bindings::kernel_ext_pfn_to_page(frame) };
        if self.counts {
            // SAFETY: It is a page, which is pinned.
            let reserved = unsafe { bindings::kernel_ext_page_is_reserved(page) };
            self.charged += usize::from(!reserved);
        }
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

    /// Unpins all pages. Returns how many of them count as locked memory, if that was asked for.
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
