// SPDX-License-Identifier: GPL-2.0

//! Pins user pages for devices.

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};

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

/// The array in which a batch stores its page pointers.
enum Storage<'a> {
    Inline([*mut bindings::page; PinBatch::INLINE]),
    /// Its length is the number of stored pages; the pages are within its capacity.
    Heap(Vec<*mut bindings::page, KVmalloc>),
    Borrowed(&'a mut [*mut bindings::page]),
}

/// Pages that were pinned by one call. The caller then removes them run by run.
///
/// Pages that weren't removed are unpinned when the batch is refilled or dropped.
///
/// # Invariants
///
/// `pages[next..end]` are pinned, and this value owns the pins.
pub struct PinBatch<'a> {
    storage: Storage<'a>,
    next: usize,
    end: usize,
    write: bool,
}

// SAFETY: Pins aren't bound to a thread.
unsafe impl Send for PinBatch<'_> {}

impl PinBatch<'static> {
    /// Number of pages that a batch can hold without an allocation.
    pub const INLINE: usize = 8;

    /// Creates a batch with room for [`INLINE`](Self::INLINE) pages.
    pub fn inline() -> Self {
        Self::with(Storage::Inline([core::ptr::null_mut(); Self::INLINE]))
    }

    /// Enlarges the batch to `capacity` pages. Does nothing if the batch is already that large, or
    /// if the allocation fails: a larger batch is only faster. When the batch is enlarged, pages
    /// that weren't removed are unpinned.
    pub fn try_grow(&mut self, capacity: usize) {
        if capacity <= self.capacity() {
            return;
        }
        if let Ok(pages) = Vec::with_capacity(capacity, GFP_KERNEL_ACCOUNT | __GFP_NOWARN) {
            *self = Self::with(Storage::Heap(pages));
        }
    }
}

impl<'a> PinBatch<'a> {
    /// Creates a batch that stores its pages in `pages`. The caller can still read the pages there
    /// after they were removed from the batch.
    pub(super) fn borrowed(pages: &'a mut [*mut bindings::page]) -> Self {
        Self::with(Storage::Borrowed(pages))
    }

    fn with(storage: Storage<'a>) -> Self {
        // INVARIANT: No page is pinned.
        Self {
            storage,
            next: 0,
            end: 0,
            write: false,
        }
    }

    /// Returns the stored pages.
    fn pages(&self) -> &[*mut bindings::page] {
        match &self.storage {
            Storage::Inline(pages) => pages,
            Storage::Heap(pages) => pages,
            Storage::Borrowed(pages) => pages,
        }
    }

    /// Returns the array for the next pages, which has room for [`capacity`](Self::capacity) pages.
    fn storage_mut(&mut self) -> *mut *mut bindings::page {
        match &mut self.storage {
            Storage::Inline(pages) => pages.as_mut_ptr(),
            Storage::Heap(pages) => pages.as_mut_ptr(),
            Storage::Borrowed(pages) => pages.as_mut_ptr(),
        }
    }

    /// Returns the number of pages for which there is room.
    pub fn capacity(&self) -> usize {
        match &self.storage {
            Storage::Inline(pages) => pages.len(),
            Storage::Heap(pages) => pages.capacity(),
            Storage::Borrowed(pages) => pages.len(),
        }
    }

    /// Returns the number of pages that haven't been removed.
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.next
    }

    /// Returns whether all pages have been removed.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.next == self.end
    }

    /// Pins up to `count` pages of the calling process, starting at address `start`, with
    /// `FOLL_LONGTERM`.
    ///
    /// Faults in the pages if needed, for writing if `write`. Takes the mmap lock of the process
    /// for reading. Returns the number of pinned pages, at least one.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the caller is a kernel thread; `EFAULT` if there is no memory at `start`, if it
    /// may not be pinned, or if the protection keys of the calling thread deny access to it;
    /// `EINTR`, `EAGAIN` or `ENOMEM` from the page fault.
    pub fn fill(&mut self, start: usize, count: usize, write: bool) -> Result<usize> {
        if kernel::current!().mm().is_none() {
            return Err(ENODEV);
        }
        self.unpin_rest();
        let count = count.min(self.capacity());
        let mut flags = bindings::FOLL_LONGTERM;
        if write {
            flags |= bindings::FOLL_WRITE;
        }
        // SAFETY: There is room for `count` pages, and `current` has an `mm`.
        let pinned = unsafe {
            bindings::pin_user_pages_fast(start, count as c_int, flags, self.storage_mut())
        };
        // SAFETY: The function returns how many pages it has pinned and stored.
        let filled = unsafe { self.filled(pinned as isize, write) };
        // The range reaches past the last address; there is no memory at such addresses.
        filled.map_err(|e| if e == EOVERFLOW { EFAULT } else { e })
    }

    /// Like [`fill`](Self::fill), but pins pages of `mm`, which may belong to another process. The
    /// protection keys of the calling thread don't apply. Memory whose faults are handled by
    /// another thread (userfaultfd) is not faulted in.
    ///
    /// # Errors
    ///
    /// `EFAULT`, `EINTR` and `ENOMEM`, as for [`fill`](Self::fill).
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
        // SAFETY: There is room for `count` pages; `mm` has users and its mmap lock is held. The
        // function doesn't drop the lock, because `locked` is null.
        let pinned = unsafe {
            bindings::pin_user_pages_remote(
                mm.as_raw(),
                start,
                count,
                flags,
                self.storage_mut(),
                core::ptr::null_mut(),
            )
        };
        drop(lock);
        // SAFETY: The function returns how many pages it has pinned and stored.
        unsafe { self.filled(pinned, write) }
    }

    /// Records the result of a pinning function: a number of pages, or an error.
    ///
    /// # Safety
    ///
    /// If `pinned` is a number of pages, that many pages are stored in the array, and the caller
    /// owns their pins.
    unsafe fn filled(&mut self, pinned: isize, write: bool) -> Result<usize> {
        // INVARIANT: The batch is empty.
        (self.next, self.end) = (0, 0);
        if pinned < 0 {
            return Err(Error::from_errno(pinned as c_int));
        }
        if pinned == 0 {
            return Err(EFAULT);
        }
        if let Storage::Heap(pages) = &mut self.storage {
            pages.clear();
            // SAFETY: The pages were stored there, by the contract of this function.
            unsafe { pages.inc_len(pinned as usize) };
        }
        // INVARIANT: The first `pinned` pages were pinned for this value.
        self.end = pinned as usize;
        self.write = write;
        Ok(self.end)
    }

    /// Returns how many of the remaining pages count as locked memory.
    pub fn charged(&self) -> usize {
        let left = self.pages().get(self.next..self.end).unwrap_or_default();
        let mut charged = left.len();
        for &page in left {
            // SAFETY: The pages are pinned, by the type invariant.
            charged -= usize::from(unsafe { is_reserved(page) });
        }
        charged
    }

    /// Removes the next pages whose frames are consecutive: at most `limit` of them, and at least
    /// one. Returns `None` if no page is left.
    pub fn take_run(&mut self, limit: usize) -> Option<PinnedRun> {
        let left = self.pages().get(self.next..self.end)?;
        let first = NonNull::new(*left.first()?)?;
        let count = consecutive(left.get(..limit.clamp(1, left.len()))?);
        // INVARIANT: The run owns the pins of these pages now.
        self.next += count;
        Some(PinnedRun {
            first,
            count,
            write: self.write,
        })
    }

    /// Returns the number of pages that were removed since the batch was filled.
    pub(crate) fn removed(&self) -> usize {
        self.next
    }

    /// Removes the next pages, at most `limit` of them. The caller owns their pins.
    pub(super) fn take_pages(&mut self, limit: usize) -> &[*mut bindings::page] {
        let start = self.next;
        // INVARIANT: The caller owns the pins of these pages now.
        self.next += limit.min(self.len());
        self.pages().get(start..self.next).unwrap_or_default()
    }

    /// Returns whether the pages are pinned for writing.
    pub(super) fn is_write(&self) -> bool {
        self.write
    }

    /// Unpins the pages that haven't been removed.
    fn unpin_rest(&mut self) {
        while let Some(run) = self.take_run(usize::MAX) {
            drop(run);
        }
    }
}

/// Returns whether a page is reserved, such as the zero page. Reserved pages don't count as locked
/// memory.
///
/// # Safety
///
/// `page` points to a valid page.
#[inline]
pub(super) unsafe fn is_reserved(page: *const bindings::page) -> bool {
    // SAFETY: By the contract of this function. Other threads may change the flags concurrently,
    // but not this one.
    let flags = unsafe { (&raw const (*page).flags.f).read_volatile() };
    flags & 1 << bindings::pageflags_PG_reserved != 0
}

/// Returns how many of `pages`, from the first page on, have consecutive frames: at least one.
///
/// This visits each small page of a huge page, too, and is a large part of the cost for huge pages.
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
    // If there are several arrays of `struct page`, one may follow another in memory by chance.
    let frame = |nth: usize| {
        let page = pages.get(nth).copied().unwrap_or(core::ptr::null_mut());
        // SAFETY: The function only computes with the address.
        unsafe { bindings::kernel_ext_page_to_pfn(page) }
    };
    if frame(count - 1).wrapping_sub(frame(0)) == count - 1 {
        count
    } else {
        1
    }
}

impl Drop for PinBatch<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.is_empty() {
            self.unpin_rest();
        }
    }
}

/// Pinned pages with consecutive frames; dropping it unpins them.
///
/// # Invariants
///
/// The `count` pages starting at `first` are pinned, once each, and this value owns the pins.
pub struct PinnedRun {
    first: NonNull<bindings::page>,
    count: usize,
    write: bool,
}

// SAFETY: Pins aren't bound to a thread.
unsafe impl Send for PinnedRun {}

impl PinnedRun {
    /// Returns the number of the first frame.
    pub fn frame(&self) -> usize {
        // SAFETY: `first` is a page, by the type invariant.
        unsafe { bindings::kernel_ext_page_to_pfn(self.first.as_ptr()) }
    }

    /// Returns the number of pages, at least one.
    #[inline]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns the length in bytes.
    pub fn bytes(&self) -> usize {
        self.count * PAGE_SIZE
    }

    /// Returns whether the pages were pinned for writing.
    pub fn is_write(&self) -> bool {
        self.write
    }

    /// Returns whether the pages count as locked memory. The zero page and other reserved pages
    /// don't.
    #[inline]
    pub fn is_charged(&self) -> bool {
        // SAFETY: `first` is a page, by the type invariant.
        unsafe { !is_reserved(self.first.as_ptr()) }
    }

    /// Appends `next`, if its first frame follows the last frame of this run, both were pinned with
    /// the same access, and together they have at most `limit` pages.
    ///
    /// # Errors
    ///
    /// Returns `next` if it can't be appended.
    pub fn join(&mut self, next: Self, limit: usize) -> Result<(), Self> {
        let joins = self.frame() + self.count == next.frame()
            && self.count + next.count <= limit
            && self.write == next.write;
        if !joins {
            return Err(next);
        }
        // INVARIANT: This value owns the pins of `next` now.
        self.count += next.into_frames().1;
        Ok(())
    }

    /// Returns the first frame and the number of frames, and gives up the pins: the caller owns
    /// them now and has to release them.
    pub(crate) fn into_frames(self) -> (usize, usize) {
        let frames = (self.frame(), self.count);
        core::mem::forget(self);
        frames
    }

    /// Takes ownership of the pins of `count` pages starting at `frame`.
    ///
    /// # Safety
    ///
    /// The frames came from [`into_frames`](Self::into_frames), and each pin is taken once.
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
        // SAFETY: By the type invariant these pages are pinned and this value owns the pins; the
        // function handles consecutive frames as consecutive pages.
        unsafe {
            bindings::unpin_user_page_range_dirty_lock(self.first.as_ptr(), self.count, self.write)
        };
    }
}

/// A pinned page to pass to a device driver, who is one of its users. This value doesn't own the
/// pin.
///
/// # Invariants
///
/// The page is pinned for all of `'a`.
pub struct PinnedPage<'a>(NonNull<bindings::page>, PhantomData<&'a ()>);

impl PinnedPage<'_> {
    /// Wraps a page.
    ///
    /// # Safety
    ///
    /// The page is pinned for all of `'a`.
    pub(super) unsafe fn new(page: NonNull<bindings::page>) -> Self {
        // INVARIANT: By the contract of this function.
        Self(page, PhantomData)
    }

    /// Returns the C structure of the page.
    pub(crate) fn into_raw(self) -> *mut bindings::page {
        self.0.as_ptr()
    }
}
