// SPDX-License-Identifier: GPL-2.0

//! Physical memory: a block of our own, and all of it as devices see it.

use core::ptr::NonNull;

use kernel::{
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::atomic::{
        Acquire,
        Atomic, //
    }, //
};

use kernel_ext::bindings;

use crate::software::Translated;

/// The physical address of a frame.
pub(crate) fn phys_of(frame: usize) -> u64 {
    // A 32-bit machine may have more memory than it has addresses.
    (frame as u64) << PAGE_SHIFT
}

/// Zeroed, physically contiguous memory, which begins at a multiple of its size.
///
/// # Invariants
///
/// `page` is the first of `1 << order` pages that this value owns, and `base` their address.
pub(crate) struct Contiguous {
    page: NonNull<bindings::page>,
    base: NonNull<Atomic<u32>>,
    order: u32,
}

// SAFETY: The memory belongs to no thread, and is only accessed by atomic operations.
unsafe impl Send for Contiguous {}

// SAFETY: As above.
unsafe impl Sync for Contiguous {}

impl Contiguous {
    /// The most that can be had, as the logarithm of the number of pages.
    pub(crate) const MAX_ORDER: u32 = bindings::MAX_PAGE_ORDER;

    /// Allocates `1 << order` pages.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(order: u32) -> Result<Self> {
        let flags = bindings::GFP_KERNEL | bindings::__GFP_ZERO | bindings::__GFP_NOWARN;
        // SAFETY: There are no requirements.
        let page = NonNull::new(unsafe { bindings::alloc_pages(flags, order) }).ok_or(ENOMEM)?;
        // SAFETY: The page is valid, and not of high memory by the flags.
        let base = unsafe { bindings::kernel_ext_page_address(page.as_ptr()) };
        // INVARIANT: The pages were allocated just now. Their address isn't null.
        Ok(Self {
            page,
            base: NonNull::new(base.cast()).ok_or(ENOMEM)?,
            order,
        })
    }

    /// The physical address.
    pub(crate) fn phys(&self) -> u64 {
        // SAFETY: The page is valid, by the type invariant.
        let frame = unsafe { bindings::kernel_ext_page_to_pfn(self.page.as_ptr()) };
        phys_of(frame)
    }

    /// The memory, as words that others may look at at the same time.
    pub(crate) fn words(&self) -> &[Atomic<u32>] {
        let words = (PAGE_SIZE << self.order) / size_of::<u32>();
        // SAFETY: By the type invariant there are so many words; they were zeroed, and as long as
        // this value lives they are accessed by atomic operations only.
        unsafe { core::slice::from_raw_parts(self.base.as_ptr(), words) }
    }
}

impl Drop for Contiguous {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the pages are ours.
        unsafe { bindings::__free_pages(self.page.as_ptr(), self.order) };
    }
}

/// The memory of this machine, as what is behind a PAMU accesses it.
#[derive(Clone, Copy)]
pub(crate) struct Physical;

impl Physical {
    /// The address in the kernel of `len` bytes of memory which lie in one page, if it is memory.
    fn address(phys: u64, len: usize) -> Option<NonNull<u8>> {
        let frame = usize::try_from(phys >> PAGE_SHIFT).ok()?;
        let offset = phys as usize % PAGE_SIZE;
        // SAFETY: It looks at the frame's number, and at its `struct page` if there is one.
        let is_ram = unsafe { bindings::kernel_ext_pfn_is_ram(frame) };
        if !is_ram || len > PAGE_SIZE - offset {
            return None;
        }
        // SAFETY: The frame has a `struct page`, since it is memory.
        let page = unsafe { bindings::kernel_ext_pfn_to_page(frame) };
        // SAFETY: The page is valid; on 64-bit machines all pages have an address.
        let base = NonNull::new(unsafe { bindings::kernel_ext_page_address(page) }.cast::<u8>())?;
        // SAFETY: The offset is less than a page.
        Some(unsafe { base.add(offset) })
    }

    /// The big-endian word at `phys`, a multiple of four; `None` where there is no memory.
    pub(crate) fn load(self, phys: u64) -> Option<u32> {
        if phys % 4 != 0 {
            return None;
        }
        let word = Self::address(phys, 4)?.cast::<u32>();
        // SAFETY: This is memory of the machine; whatever it is used for, a word can be read
        // atomically, and any bits are a valid one.
        let word = unsafe { Atomic::from_ptr(word.as_ptr()) };
        Some(u32::from_be(word.load(Acquire)))
    }

    /// Reads what a transaction was translated to, all of it in one page.
    pub(crate) fn read(self, from: &Translated, data: &mut [u8]) -> bool {
        let Some(address) = Self::address(from.phys(), data.len()) else {
            return false;
        };
        // SAFETY: A PAMU's entry leads to this memory, so by the contract of `Window::new` it is
        // the device's until the entry was closed and the PAMU drained; the caller holds the lock
        // of the PAMU, for which a drain waits. Who else accesses it is a matter of user memory.
        unsafe { core::ptr::copy_nonoverlapping(address.as_ptr(), data.as_mut_ptr(), data.len()) };
        true
    }

    /// Writes to what a transaction was translated to, all of it in one page.
    pub(crate) fn write(self, to: &Translated, data: &[u8]) -> bool {
        let Some(address) = Self::address(to.phys(), data.len()) else {
            return false;
        };
        // SAFETY: As for `read`; the entry permits writing.
        unsafe { core::ptr::copy_nonoverlapping(data.as_ptr(), address.as_ptr(), data.len()) };
        true
    }
}
