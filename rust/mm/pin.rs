// SPDX-License-Identifier: GPL-2.0

//! Pinning user pages for devices.

use core::ptr::NonNull;

use kernel::{
    alloc::{
        allocator::KVmalloc,
        Vec, //
    },
    ffi::c_int,
    mm::MmWithUser,
    page::PAGE_SIZE,
    prelude::*, //
};

use crate::bindings;

/// Where the pages of a batch are noted.
enum Room<'a> {
    Few([*mut bindings::page; PinBatch::FEW]),
    /// Within the capacity; the length is that of the pages which were noted.
    Own(Vec<*mut bindings::page, KVmalloc>),
    Lent(&'a mut [*mut bindings::page]),
}

/// Pages pinned by one call, which are then taken out run by run.
///
/// Pages that nobody took out are unpinned when they are overwritten or dropped.
///
/// # Invariants
///
/// `pages[next..end]` are pinned, and the pins are this value's.
pub struct PinBatch<'a> {
    room: Room<'a>,
    next: usize,
    end: usize,
    write: bool,
}

// SAFETY: Pins belong to no thread.
unsafe impl Send for PinBatch<'_> {}

impl PinBatch<'static> {
    /// How many pages a batch notes without memory of its own.
    pub const FEW: usize = 8;

    /// Has room for [`FEW`](Self::FEW) pages.
    pub fn few() -> Self {
        Self::with(Room::Few([core::ptr::null_mut(); Self::FEW]))
    }

    /// Makes room for `capacity` pages, if there is less, and memory for that: more room makes a batch
    /// faster, and no more. Pages that nobody took out are unpinned then.
    pub fn prefer_room(&mut self, capacity: usize) {
        if capacity <= self.capacity() {
            return;
        }
        if let Ok(room) = Vec::with_capacity(capacity, GFP_KERNEL_ACCOUNT | __GFP_NOWARN) {
            *self = Self::with(Room::Own(room));
        }
    }
}

impl<'a> PinBatch<'a> {
    /// Uses `room`, where the pages can still be read when they were taken out.
    pub(crate) fn lent(room: &'a mut [*mut bindings::page]) -> Self {
        Self::with(Room::Lent(room))
    }

    fn with(room: Room<'a>) -> Self {
        // INVARIANT: No page is pinned.
        Self {
            room,
            next: 0,
            end: 0,
            write: false,
        }
    }

    /// The pages that were noted.
    fn pages(&self) -> &[*mut bindings::page] {
        match &self.room {
            Room::Few(few) => few,
            Room::Own(own) => own,
            Room::Lent(lent) => lent,
        }
    }

    /// Where the next pages can be noted, as many as there is room for.
    fn room_mut(&mut self) -> *mut *mut bindings::page {
        match &mut self.room {
            Room::Few(few) => few.as_mut_ptr(),
            Room::Own(own) => own.as_mut_ptr(),
            Room::Lent(lent) => lent.as_mut_ptr(),
        }
    }

    /// How many pages there is room for.
    pub fn capacity(&self) -> usize {
        match &self.room {
            Room::Few(few) => few.len(),
            Room::Own(own) => own.capacity(),
            Room::Lent(lent) => lent.len(),
        }
    }

    /// How many pages are left to be taken out.
    pub fn len(&self) -> usize {
        self.end - self.next
    }

    /// Whether all pages were taken out.
    pub fn is_empty(&self) -> bool {
        self.next == self.end
    }

    /// Pins up to `count` pages of the calling process from address `start` on, for long.
    ///
    /// Faults them in as needed, for writing if `write`. Takes the lock of the process's memory for
    /// reading. Returns how many pages were pinned, at least one.
    ///
    /// # Errors
    ///
    /// `ENODEV` for a kernel thread; `EFAULT` if there is no such memory, or none that may be
    /// pinned, or that the calling thread's protection keys allow it to access; `EINTR`, `EAGAIN` or
    /// `ENOMEM` from faulting it in.
    pub fn fill(&mut self, start: usize, count: usize, write: bool) -> Result<usize> {
        self.unpin_rest();
        if kernel::current!().mm().is_none() {
            return Err(ENODEV);
        }
        let count = count.min(self.capacity());
        let mut flags = bindings::FOLL_LONGTERM;
        if write {
            flags |= bindings::FOLL_WRITE;
        }
        // SAFETY: There is room for `count` pages, and `current` has memory.
        let pinned =
            unsafe { bindings::pin_user_pages_fast(start, count as c_int, flags, self.room_mut()) };
        // SAFETY: The function says how many it has pinned and noted.
        let filled = unsafe { self.filled(pinned as isize, write) };
        // Up to the end of all addresses. There is no memory either.
        filled.map_err(|e| if e == EOVERFLOW { EFAULT } else { e })
    }

    /// As [`fill`](Self::fill), but pages of `mm`, which needn't be the calling process's. The calling
    /// thread's protection keys don't matter. Memory whose faults another thread handles is not faulted in.
    ///
    /// # Errors
    ///
    /// `EFAULT`, `EINTR` and `ENOMEM` as for [`fill`](Self::fill).
    pub fn fill_remote(
        &mut self,
        mm: &MmWithUser,
        start: usize,
        count: usize,
        write: bool,
    ) -> Result<usize> {
        self.unpin_rest();
        let count = count.min(self.capacity());
        let mut flags = bindings::FOLL_LONGTERM;
        if write {
            flags |= bindings::FOLL_WRITE;
        }
        let lock = mm.mmap_read_lock();
        // SAFETY: There is room for `count` pages; `mm` has users and its lock is held. The function
        // doesn't let go of the lock, as it isn't told where to say so.
        let pinned = unsafe {
            bindings::pin_user_pages_remote(
                mm.as_raw(),
                start,
                count,
                flags,
                self.room_mut(),
                core::ptr::null_mut(),
            )
        };
        drop(lock);
        // SAFETY: The function says how many it has pinned and noted.
        unsafe { self.filled(pinned, write) }
    }

    /// Takes note of what a function has pinned: a number of pages, or an error.
    ///
    /// # Safety
    ///
    /// So many pages are in the room, and their pins are the caller's.
    unsafe fn filled(&mut self, pinned: isize, write: bool) -> Result<usize> {
        if pinned < 0 {
            return Err(Error::from_errno(pinned as c_int));
        }
        if pinned == 0 {
            return Err(EFAULT);
        }
        if let Room::Own(own) = &mut self.room {
            own.clear();
            // SAFETY: They were noted there, by this function's contract.
            unsafe { own.inc_len(pinned as usize) };
        }
        // INVARIANT: The first `pinned` pages were pinned for us.
        self.next = 0;
        self.end = pinned as usize;
        self.write = write;
        Ok(self.end)
    }

    /// How many of the pages that are left count as locked memory.
    pub fn charged(&self) -> usize {
        let left = self.pages().get(self.next..self.end).unwrap_or_default();
        let mut charged = left.len();
        for &page in left {
            // SAFETY: The pages are pinned, by the type invariant.
            charged -= usize::from(unsafe { is_reserved(page) });
        }
        charged
    }

    /// Takes out the next pages whose frames are consecutive, at most `limit` of them, but at least one.
    pub fn take_run(&mut self, limit: usize) -> Option<PinnedRun> {
        let left = self.pages().get(self.next..self.end)?;
        let first = NonNull::new(*left.first()?)?;
        let count = consecutive(left.get(..limit.clamp(1, left.len()))?);
        // INVARIANT: The pins of these pages go to the run.
        self.next += count;
        Some(PinnedRun {
            first,
            count,
            write: self.write,
        })
    }

    /// Takes out the next pages, at most `limit` of them: the pins are the caller's.
    pub(super) fn take_pages(&mut self, limit: usize) -> &[*mut bindings::page] {
        let start = self.next;
        // INVARIANT: The pins of these pages go to the caller.
        self.next += limit.min(self.len());
        self.pages().get(start..self.next).unwrap_or_default()
    }

    /// Whether the pages are pinned for writing.
    pub(super) fn is_write(&self) -> bool {
        self.write
    }

    /// Unpins what was not taken out.
    fn unpin_rest(&mut self) {
        while let Some(run) = self.take_run(usize::MAX) {
            drop(run);
        }
    }
}

/// Whether a page doesn't count as locked memory, like the zero page.
///
/// # Safety
///
/// It is a page.
#[inline]
pub(super) unsafe fn is_reserved(page: *const bindings::page) -> bool {
    // SAFETY: By the contract of this function. Others may change the flags now, but not this one.
    let flags = unsafe { (&raw const (*page).flags.f).read_volatile() };
    flags & 1 << bindings::pageflags_PG_reserved != 0
}

/// How many of `pages` have consecutive frames, at least one.
///
/// This goes over each page of huge ones, too, and is a good part of the work there.
fn consecutive(pages: &[*mut bindings::page]) -> usize {
    const STRIDE: usize = size_of::<bindings::page>();
    const CHUNK: usize = 8;

    let first = pages.first().map_or(0, |page| page.addr());
    let expected = |nth: usize| first.wrapping_add(nth * STRIDE);
    let mut count = 0;
    for chunk in pages.chunks_exact(CHUNK) {
        let mut differ = 0;
        for (nth, page) in chunk.iter().enumerate() {
            differ |= page.addr() ^ expected(count + nth);
        }
        if differ != 0 {
            break;
        }
        count += CHUNK;
    }
    let rest = pages.iter().enumerate().skip(count);
    let count = count
        + rest
            .take_while(|(nth, page)| page.addr() == expected(*nth))
            .count();
    // Where memory has several arrays of `struct page`, one may follow another by chance.
    let frame = |nth: usize| {
        let page = pages.get(nth).copied().unwrap_or(core::ptr::null_mut());
        // SAFETY: It computes with the address.
        unsafe { bindings::kernel_ext_page_to_pfn(page) }
    };
    if frame(count - 1).wrapping_sub(frame(0)) == count - 1 {
        count
    } else {
        1
    }
}

impl Drop for PinBatch<'_> {
    fn drop(&mut self) {
        self.unpin_rest();
    }
}

/// Pinned pages with consecutive frames; dropping it unpins them.
///
/// # Invariants
///
/// The `count` pages from `first` on are pinned, once each, and the pins are this value's.
pub struct PinnedRun {
    first: NonNull<bindings::page>,
    count: usize,
    write: bool,
}

// SAFETY: Pins belong to no thread.
unsafe impl Send for PinnedRun {}

impl PinnedRun {
    /// The number of the first frame.
    pub fn frame(&self) -> usize {
        // SAFETY: `first` is a page, by the type invariant.
        unsafe { bindings::kernel_ext_page_to_pfn(self.first.as_ptr()) }
    }

    /// The number of pages, at least one.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The length in bytes.
    pub fn bytes(&self) -> usize {
        self.count * PAGE_SIZE
    }

    /// Whether the pages were pinned for writing.
    pub fn is_write(&self) -> bool {
        self.write
    }

    /// Whether the pages count as locked memory: the zero page and other reserved ones do not.
    pub fn is_charged(&self) -> bool {
        // SAFETY: `first` is a page, by the type invariant.
        unsafe { !is_reserved(self.first.as_ptr()) }
    }

    /// Takes `next` in, if its frames go on where these end and both together are at most `limit`.
    ///
    /// # Errors
    ///
    /// `next`, if it does not.
    pub fn join(&mut self, next: Self, limit: usize) -> Result<(), Self> {
        let joins = self.frame() + self.count == next.frame()
            && self.count + next.count <= limit
            && self.write == next.write;
        if !joins {
            return Err(next);
        }
        // INVARIANT: The pins of `next` are ours now.
        self.count += next.into_frames().1;
        Ok(())
    }

    /// Hands over the pins, which then are those of the caller to return.
    pub(crate) fn into_frames(self) -> (usize, usize) {
        let frames = (self.frame(), self.count);
        core::mem::forget(self);
        frames
    }

    /// Takes the pins of `count` pages from `frame` on.
    ///
    /// # Safety
    ///
    /// The pages came from [`into_frames`](Self::into_frames), and each pin is taken once.
    pub(crate) unsafe fn from_frames(frame: usize, count: usize, write: bool) -> Option<Self> {
        // SAFETY: The frame has a `struct page`, since it was pinned.
        let first = NonNull::new(unsafe { bindings::kernel_ext_pfn_to_page(frame) })?;
        // INVARIANT: By the contract of this function.
        Some(Self {
            first,
            count,
            write,
        })
    }
}

impl Drop for PinnedRun {
    fn drop(&mut self) {
        // SAFETY: By the type invariant these pages are pinned and the pins are ours; consecutive
        // frames have consecutive pages for this function.
        unsafe {
            bindings::unpin_user_page_range_dirty_lock(self.first.as_ptr(), self.count, self.write)
        };
    }
}

/// A page that somebody keeps pinned, for handing it to a device driver.
#[derive(Clone, Copy)]
pub struct PinnedPage(NonNull<bindings::page>);

impl PinnedPage {
    /// Wraps a page.
    ///
    /// # Safety
    ///
    /// Somebody keeps it pinned as long as the driver uses it.
    pub(super) unsafe fn new(page: NonNull<bindings::page>) -> Self {
        Self(page)
    }

    /// The page's C structure.
    pub fn as_raw(self) -> *mut bindings::page {
        self.0.as_ptr()
    }
}
