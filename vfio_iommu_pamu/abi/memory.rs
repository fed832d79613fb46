// SPDX-License-Identifier: GPL-2.0

//! Physical memory: contiguous allocations, and the system's memory as devices access it.

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

/// Returns the physical address of a frame.
pub(crate) fn phys_of(frame: usize) -> u64 {
    // On a 32-bit machine a physical address may be wider than `usize`.
    (frame as u64) << PAGE_SHIFT
}

/// Zeroed, physically contiguous memory, aligned to its size.
///
/// # Invariants
///
/// `page` is the first of `1 << order` pages that this value owns, and `base` is their kernel
/// address.
pub(crate) struct Contiguous {
    page: NonNull<bindings::page>,
    base: NonNull<Atomic<u32>>,
    order: u32,
}

// SAFETY: The memory isn't bound to a thread, and is only accessed by atomic operations.
unsafe impl Send for Contiguous {}

// SAFETY: As above.
unsafe impl Sync for Contiguous {}

impl Contiguous {
    /// The maximum order: the base-2 logarithm of the largest number of pages.
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
        // SAFETY: The page is valid, and the flags exclude high memory.
        let base = unsafe { bindings::kernel_ext_page_address(page.as_ptr()) };
        // INVARIANT: The pages were just allocated, and their address isn't null.
        Ok(Self {
            page,
            base: NonNull::new(base.cast()).ok_or(ENOMEM)?,
            order,
        })
    }

    /// Returns the physical address.
    pub(crate) fn phys(&self) -> u64 {
        // SAFETY: The page is valid, by the type invariant.
        let frame = unsafe { bindings::kernel_ext_page_to_pfn(self.page.as_ptr()) };
        phys_of(frame)
    }

    /// Returns the memory as words, which others may access concurrently.
    pub(crate) fn words(&self) -> &[Atomic<u32>] {
        let words = (PAGE_SIZE << self.order) / size_of::<u32>();
        // SAFETY: By the type invariant there are this many words. They were zeroed, and while this
        // value lives they are accessed by atomic operations only.
        unsafe { core::slice::from_raw_parts(self.base.as_ptr(), words) }
    }
}

impl Drop for Contiguous {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this value owns the pages.
        unsafe { bindings::__free_pages(self.page.as_ptr(), self.order) };
    }
}

/// The memory of this machine, as the devices behind a PAMU access it.
#[derive(Clone, Copy)]
pub(crate) struct Physical;

impl Physical {
    /// Returns the kernel address of `len` bytes that lie in one page, or `None` if they are not
    /// RAM.
    fn address(phys: u64, len: usize) -> Option<NonNull<u8>> {
        let frame = usize::try_from(phys >> PAGE_SHIFT).ok()?;
        let offset = phys as usize % PAGE_SIZE;
        // SAFETY: The function only looks at the frame's number, and at its `struct page` if there
        // is one.
        let is_ram = unsafe { bindings::kernel_ext_pfn_is_ram(frame) };
        if !is_ram || len > PAGE_SIZE - offset {
            return None;
        }
        // SAFETY: The frame is RAM, so it has a `struct page`.
        let page = unsafe { bindings::kernel_ext_pfn_to_page(frame) };
        // SAFETY: The page is valid. On 64-bit machines all pages have an address.
        let base = NonNull::new(unsafe { bindings::kernel_ext_page_address(page) }.cast::<u8>())?;
        // SAFETY: The offset is less than a page.
        Some(unsafe { base.add(offset) })
    }

    /// Returns the big-endian word at `phys`. Returns `None` if `phys` isn't a multiple of four or
    /// isn't RAM.
    pub(crate) fn load(self, phys: u64) -> Option<u32> {
        if phys % 4 != 0 {
            return None;
        }
        let word = Self::address(phys, 4)?.cast::<u32>();
        // SAFETY: This is memory of the machine. Whatever it is used for, a word of it can be read
        // atomically, and every bit pattern is a valid word.
        let word = unsafe { Atomic::from_ptr(word.as_ptr()) };
        Some(u32::from_be(word.load(Acquire)))
    }

    /// Reads from the address that a transaction was translated to. The data lies in one page.
    pub(crate) fn read(self, from: &Translated, data: &mut [u8]) -> bool {
        let Some(address) = Self::address(from.phys(), data.len()) else {
            return false;
        };
        // SAFETY: An entry of the PAMU leads to this memory. By the contract of `Window::new` the
        // device may access it until the entry was closed and the PAMU drained. The caller holds
        // the lock of the PAMU, and a drain waits for that lock. Concurrent accesses are those that
        // any user memory is exposed to.
        unsafe { core::ptr::copy_nonoverlapping(address.as_ptr(), data.as_mut_ptr(), data.len()) };
        true
    }

    /// Writes to the address that a transaction was translated to. The data lies in one page.
    pub(crate) fn write(self, to: &Translated, data: &[u8]) -> bool {
        let Some(address) = Self::address(to.phys(), data.len()) else {
            return false;
        };
        // SAFETY: As for `read`; the entry permits writing.
        unsafe { core::ptr::copy_nonoverlapping(data.as_ptr(), address.as_ptr(), data.len()) };
        true
    }
}
