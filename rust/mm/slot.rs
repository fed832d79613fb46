// SPDX-License-Identifier: GPL-2.0

//! One pinned page with a count of users, in one word.

use core::ptr::NonNull;

use crate::bindings;

use super::pin::{
    PinnedPage,
    PinnedRun, //
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
    pub fn is_used(&self) -> bool {
        self.0 != 0
    }

    /// The number of the page's frame.
    fn frame(&self) -> usize {
        (self.0 >> (USER_BITS + 1)) as usize
    }

    /// Whether there is a page, which counts as locked memory.
    pub fn is_charged(&self) -> bool {
        // SAFETY: It only looks at the frame's number and its `struct page`, if there is one.
        self.is_used() && unsafe { bindings::kernel_ext_pfn_is_ram(self.frame()) }
    }

    /// Puts the page of `run` here, with one user.
    ///
    /// # Errors
    ///
    /// `run`, if there is a page already, or `run` isn't one page.
    pub fn fill(&mut self, run: PinnedRun) -> Result<(), PinnedRun> {
        if self.is_used() || run.count() != 1 {
            return Err(run);
        }
        let write = if run.is_write() { WRITE } else { 0 };
        let (frame, _) = run.into_frames();
        // INVARIANT: The pin of the run is this value's now.
        self.0 = 1 | write | (frame as u64) << (USER_BITS + 1);
        Ok(())
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
    pub fn page(&self) -> Option<PinnedPage> {
        if !self.is_used() {
            return None;
        }
        // SAFETY: The frame has a page, which is pinned by the type invariant.
        let page = unsafe { bindings::kernel_ext_pfn_to_page(self.frame()) };
        // SAFETY: The page is pinned until its last user has given it back, by the type invariant.
        Some(unsafe { PinnedPage::new(NonNull::new(page)?) })
    }

    /// Takes one user off. Returns the page when that was the last one.
    pub fn release(&mut self) -> Option<PinnedRun> {
        if !self.is_used() {
            return None;
        }
        // INVARIANT: There is a user, hence one may be taken off.
        self.0 -= 1;
        if self.0 & (WRITE - 1) != 0 {
            return None;
        }
        let (frame, write) = (self.frame(), self.0 & WRITE != 0);
        // INVARIANT: Empty, as the pin goes to the run.
        self.0 = 0;
        // SAFETY: By the type invariant the pin was this value's, which doesn't have it any more.
        unsafe { PinnedRun::from_frames(frame, 1, write) }
    }
}

impl Drop for PinSlot {
    fn drop(&mut self) {
        while self.is_used() {
            drop(self.release());
        }
    }
}
