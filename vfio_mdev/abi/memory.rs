// SPDX-License-Identifier: GPL-2.0

//! Memory of a device, which programs can map.

use core::ptr::NonNull;

use kernel::{
    error::to_result,
    ffi::c_void,
    mm::virt::VmaNew,
    page::PAGE_SIZE,
    prelude::*,
    uaccess::UserPtr, //
};
use kernel_ext::bindings;

use super::store::{
    Sealed,
    Store, //
};

/// Memory that a device has: zeroed at first, a whole number of pages.
///
/// A program that maps it keeps its pages, whatever becomes of the device.
///
/// # Invariants
///
/// Points at `len` bytes of `vmalloc_user()`. They are shared with programs, so they are only read and
/// written by C functions that copy.
pub struct Memory {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: The memory belongs to no thread.
unsafe impl Send for Memory {}
// SAFETY: It is only copied by C functions, for which concurrent changes are no undefined behaviour.
unsafe impl Sync for Memory {}

impl Memory {
    /// Allocates `len` bytes, which is a multiple of the page size.
    ///
    /// # Errors
    ///
    /// `EINVAL` for another length or none, `ENOMEM`.
    pub fn new(len: usize) -> Result<Self> {
        if len == 0 || len % PAGE_SIZE != 0 {
            return Err(EINVAL);
        }
        // SAFETY: There are no requirements.
        let start = unsafe { bindings::kernel_ext_vmalloc_user(len) };
        // INVARIANT: Allocated just now.
        Ok(Self {
            start: NonNull::new(start.cast()).ok_or(ENOMEM)?,
            len,
        })
    }

    /// How many bytes there are.
    #[expect(clippy::len_without_is_empty)]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// The address of `len` bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there are not so many.
    fn at(&self, offset: usize, len: usize) -> Result<*mut c_void> {
        if offset > self.len || len > self.len - offset {
            return Err(EINVAL);
        }
        Ok(self.start.as_ptr().wrapping_add(offset).cast())
    }

    /// Copies bytes out.
    ///
    /// # Errors
    ///
    /// `EINVAL` beyond the end.
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Result {
        let from = self.at(offset, to.len())?;
        // SAFETY: `at` has checked the range; the memory is no Rust slice's.
        unsafe { bindings::memcpy(to.as_mut_ptr().cast(), from, to.len()) };
        Ok(())
    }

    /// Copies bytes in.
    ///
    /// # Errors
    ///
    /// `EINVAL` beyond the end.
    pub fn write(&self, offset: usize, from: &[u8]) -> Result {
        let to = self.at(offset, from.len())?;
        // SAFETY: As for `read`.
        unsafe { bindings::memcpy(to, from.as_ptr().cast(), from.len()) };
        Ok(())
    }

    /// Sets `len` bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// `EINVAL` beyond the end.
    pub fn fill(&self, offset: usize, len: usize, byte: u8) -> Result {
        let to = self.at(offset, len)?;
        // SAFETY: As for `read`.
        unsafe { bindings::memset(to, byte.into(), len) };
        Ok(())
    }

    /// Copies bytes to a program.
    ///
    /// # Errors
    ///
    /// `EINVAL` beyond the end, `EFAULT`.
    pub(crate) fn copy_to_user(&self, offset: usize, to: UserPtr, len: usize) -> Result {
        let from = self.at(offset, len)?;
        // SAFETY: `at` has checked the range; the function checks the program's.
        let left = unsafe { bindings::kernel_ext_copy_to_user(to.as_mut_ptr(), from, len) };
        (left == 0).then_some(()).ok_or(EFAULT)
    }

    /// Copies bytes from a program.
    ///
    /// # Errors
    ///
    /// `EINVAL` beyond the end, `EFAULT`.
    pub(crate) fn copy_from_user(&self, offset: usize, from: UserPtr, len: usize) -> Result {
        let to = self.at(offset, len)?;
        // SAFETY: As for `copy_to_user`.
        let left = unsafe { bindings::kernel_ext_copy_from_user(to, from.as_const_ptr(), len) };
        (left == 0).then_some(()).ok_or(EFAULT)
    }

    /// Fills a new mapping with the bytes from `offset` on, which is page aligned.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the mapping is longer than what is left, `ENOMEM`.
    pub(crate) fn map(&self, offset: usize, vma: &VmaNew) -> Result {
        let pages = offset / PAGE_SIZE;
        // SAFETY: The memory is from `vmalloc_user()`; the function checks the range and counts a
        // reference to each page that it maps.
        to_result(unsafe {
            bindings::remap_vmalloc_range(vma.as_ptr(), self.start.as_ptr().cast(), pages)
        })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; pages that are mapped have references of their own.
        unsafe { bindings::vfree(self.start.as_ptr().cast()) }
    }
}

impl Sealed for Memory {}

// SAFETY: `at` checks the ranges, and the memory lives as long as `self`.
unsafe impl Store for Memory {
    fn direct(&self, offset: usize, len: usize) -> Option<Result<*mut c_void>> {
        Some(self.at(offset, len))
    }

    unsafe fn get(&self, offset: usize, to: *mut c_void, len: usize) -> Result {
        let from = self.at(offset, len)?;
        // SAFETY: By this function's contract; `at` has checked the own range. The two may overlap.
        unsafe { bindings::memmove(to, from, len) };
        Ok(())
    }

    unsafe fn put(&self, offset: usize, from: *const c_void, len: usize) -> Result {
        let to = self.at(offset, len)?;
        // SAFETY: As for `get`.
        unsafe { bindings::memmove(to, from, len) };
        Ok(())
    }
}
