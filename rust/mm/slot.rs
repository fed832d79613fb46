// SPDX-License-Identifier: GPL-2.0

//! Pinned pages with a count of users each, one word a page.

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

    /// Puts the first pages of `run` into `slots`, one into each, with one user. Calls `put` for each
    /// of them, and returns those for which there was no slot.
    ///
    /// # Errors
    ///
    /// `run`, if there is a page in one of the slots.
    pub fn fill(
        slots: &mut [Self],
        run: PinnedRun,
        mut put: impl FnMut(PinnedPage),
    ) -> Result<Option<PinnedRun>, PinnedRun> {
        if slots.iter().any(Self::is_used) {
            return Err(run);
        }
        let is_write = run.is_write();
        let write = if is_write { WRITE } else { 0 };
        let (first, count) = run.into_frames();
        let filled = count.min(slots.len());
        for (slot, frame) in slots.iter_mut().zip(first..first + filled) {
            // INVARIANT: The pin of the run is this value's now.
            slot.0 = 1 | write | (frame as u64) << (USER_BITS + 1);
            if let Some(page) = slot.page() {
                put(page);
            }
        }
        if filled == count {
            return Ok(None);
        }
        // SAFETY: These pages came from the run, and no slot has taken their pins.
        Ok(unsafe { PinnedRun::from_frames(first + filled, count - filled, is_write) })
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
        let mut released = Released::default();
        while self.is_used() {
            self.release(&mut released);
        }
    }
}

/// Pages which nobody uses any more: neighbours are unpinned together.
///
/// # Invariants
///
/// The `count` pages from frame `first` on are pinned, once each, and the pins are this value's.
#[derive(Default)]
pub struct Released {
    first: usize,
    count: usize,
    write: bool,
    charged: usize,
}

impl Released {
    /// Adds a page, of which the caller gives up the pin.
    fn add(&mut self, frame: usize, write: bool) {
        if self.count == 0 || self.first + self.count != frame || self.write != write {
            self.unpin();
            // INVARIANT: Nothing is left, and the new page follows.
            self.first = frame;
            self.write = write;
        }
        // INVARIANT: The pin is this value's now.
        self.count += 1;
    }

    /// Unpins what there is.
    fn unpin(&mut self) {
        let count = core::mem::take(&mut self.count);
        if count == 0 {
            return;
        }
        // SAFETY: By the type invariant the pins were this value's, which doesn't have them any more.
        if let Some(run) = unsafe { PinnedRun::from_frames(self.first, count, self.write) } {
            if run.is_charged() {
                self.charged += count;
            }
        }
    }

    /// Unpins all pages. Returns how many of them count as locked memory.
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
