// SPDX-License-Identifier: GPL-2.0

//! Physically contiguous memory, which a PAMU reads by its physical address.

use core::ptr::NonNull;

use kernel::{
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::atomic::Atomic, //
};

use kernel_ext::bindings;

/// Zeroed, physically contiguous pages, aligned to their size.
///
/// # Invariants
///
/// `page` is the first of `1 << order` pages that this value owns, and `base` is their kernel
/// address.
pub struct ContiguousPages {
    page: NonNull<bindings::page>,
    base: NonNull<Atomic<u32>>,
    order: u32,
}

// SAFETY: The pages aren't bound to a thread, and are only accessed by atomic operations.
unsafe impl Send for ContiguousPages {}

// SAFETY: As above.
unsafe impl Sync for ContiguousPages {}

impl ContiguousPages {
    /// The maximum order: the base-2 logarithm of the largest number of pages.
    pub(crate) const MAX_ORDER: u32 = bindings::MAX_PAGE_ORDER;

    /// Allocates `1 << order` pages.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(order: u32) -> Result<Self> {
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
    pub fn phys(&self) -> u64 {
        // SAFETY: The page is valid, by the type invariant.
        let frame = unsafe { bindings::kernel_ext_page_to_pfn(self.page.as_ptr()) };
        // On a 32-bit machine a physical address may be wider than `usize`.
        (frame as u64) << PAGE_SHIFT
    }

    /// Returns the memory as words, which others may access concurrently.
    pub fn words(&self) -> &[Atomic<u32>] {
        let words = (PAGE_SIZE << self.order) / size_of::<u32>();
        // SAFETY: By the type invariant there are this many words. They were zeroed, and while this
        // value lives they are accessed by atomic operations only.
        unsafe { core::slice::from_raw_parts(self.base.as_ptr(), words) }
    }
}

impl Drop for ContiguousPages {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this value owns the pages.
        unsafe { bindings::__free_pages(self.page.as_ptr(), self.order) };
    }
}
