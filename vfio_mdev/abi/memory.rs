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
use crate::driver::{
    Access,
    Width, //
};

/// Memory that a device has: zeroed at first, a whole number of pages.
///
/// A program maps it as it maps registers (`VM_PFNMAP`): nothing can pin the pages, so no program has any of
/// them once the device is closed.
///
/// # Invariants
///
/// Points at `len` bytes, which are a page of their own if they fit into one, and else are from
/// `vmalloc_user()`. They are shared with programs, so they are only read and written by C functions
/// that copy, or as volatile words.
pub struct Memory {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: The memory belongs to no thread.
unsafe impl Send for Memory {}
// SAFETY: By the type invariant concurrent changes are no undefined behaviour.
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
        let start = unsafe {
            match len {
                PAGE_SIZE => bindings::kernel_ext_zeroed_page(),
                _ => bindings::kernel_ext_vmalloc_user(len),
            }
        };
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
    #[inline]
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

    /// The address of a `T` at `offset`.
    ///
    /// # Errors
    ///
    /// `EINVAL` beyond the end, or if it is not aligned.
    #[inline]
    fn word<T>(&self, offset: u64) -> Result<*mut T> {
        let word: *mut T = self.at(offset as usize, core::mem::size_of::<T>())?.cast();
        word.is_aligned().then_some(word).ok_or(EINVAL)
    }

    /// Reads as a register.
    ///
    /// # Errors
    ///
    /// `EINVAL` beyond the end, or if it is not aligned.
    #[inline]
    pub(crate) fn load(&self, at: Access) -> Result<u32> {
        // SAFETY: `word` has checked the address. Volatile, as programs write there.
        Ok(unsafe {
            match at.width {
                Width::Byte => self.word::<u8>(at.offset)?.read_volatile().into(),
                Width::Word => u16::from_le(self.word::<u16>(at.offset)?.read_volatile()).into(),
                Width::Long => u32::from_le(self.word::<u32>(at.offset)?.read_volatile()),
            }
        })
    }

    /// Writes as a register.
    ///
    /// # Errors
    ///
    /// `EINVAL` beyond the end, or if it is not aligned.
    #[inline]
    pub(crate) fn store(&self, at: Access, value: u32) -> Result {
        // SAFETY: `word` has checked the address. Volatile, as programs read there.
        unsafe {
            match at.width {
                Width::Byte => self.word::<u8>(at.offset)?.write_volatile(value as u8),
                Width::Word => self
                    .word::<u16>(at.offset)?
                    .write_volatile((value as u16).to_le()),
                Width::Long => self.word::<u32>(at.offset)?.write_volatile(value.to_le()),
            }
        }
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
    ///
    /// # Safety
    ///
    /// The memory lives until the mapping is gone, which holds no references to the pages.
    pub(super) unsafe fn map(&self, offset: usize, vma: &VmaNew) -> Result {
        let start = self.at(offset, vma.end() - vma.start())?;
        // SAFETY: By the type invariant these are whole pages: `at` has checked the range. They stay by
        // this function's contract.
        to_result(unsafe { bindings::kernel_ext_remap_memory(vma.as_ptr(), start) })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let start: *const c_void = self.start.as_ptr().cast();
        // SAFETY: By the type invariant; by the contract of `map` no program has the pages.
        unsafe {
            match self.len {
                PAGE_SIZE => bindings::free_pages(start as usize, 0),
                _ => bindings::vfree(start),
            }
        }
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
