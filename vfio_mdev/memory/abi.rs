// SPDX-License-Identifier: GPL-2.0

//! Device memory that userspace can map, and copies between it and the memory of processes.

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

use crate::driver::{
    Access,
    Width, //
};

/// Device memory: a whole number of pages, initially zeroed.
///
/// Userspace maps it like registers (`VM_PFNMAP`). The pages cannot be pinned, so no process has
/// access to them once the device is closed.
///
/// # Invariants
///
/// `start` points at `len` bytes. They are a page of its own if `len` is the page size, and are
/// allocated with `vmalloc_user()` otherwise. The bytes are shared with userspace, so they are only
/// accessed by C functions that copy, or as volatile words.
pub struct DeviceMemory {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: The memory does not belong to a thread.
unsafe impl Send for DeviceMemory {}
// SAFETY: By the type invariant, concurrent changes are not undefined behaviour.
unsafe impl Sync for DeviceMemory {}

impl DeviceMemory {
    /// Allocates `len` bytes. `len` must be a multiple of the page size.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `len` is zero or not a multiple of the page size, `ENOMEM`.
    pub fn new(len: usize) -> Result<Self> {
        if len == 0 || len % PAGE_SIZE != 0 {
            return Err(EINVAL);
        }
        // SAFETY: The functions have no requirements.
        let start = unsafe {
            match len {
                PAGE_SIZE => bindings::kernel_ext_zeroed_page(),
                _ => bindings::kernel_ext_vmalloc_user(len),
            }
        };
        // INVARIANT: The memory was just allocated.
        Ok(Self {
            start: NonNull::new(start.cast()).ok_or(ENOMEM)?,
            len,
        })
    }

    /// Returns the size in bytes.
    #[expect(clippy::len_without_is_empty)]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Returns the address of `len` bytes at `offset`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the range is not within the memory.
    #[inline]
    fn at(&self, offset: usize, len: usize) -> Result<*mut c_void> {
        if offset > self.len || len > self.len - offset {
            return Err(EINVAL);
        }
        Ok(self.start.as_ptr().wrapping_add(offset).cast())
    }

    /// Reads bytes from the memory.
    ///
    /// # Errors
    ///
    /// `EINVAL` beyond the end.
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Result {
        let from = self.at(offset, to.len())?;
        // SAFETY: `at` has checked the range. The memory is not part of a Rust slice.
        unsafe { bindings::memcpy(to.as_mut_ptr().cast(), from, to.len()) };
        Ok(())
    }

    /// Writes bytes to the memory.
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

    /// Sets `len` bytes at `offset` to `byte`.
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

    /// Returns the address of a `T` at `offset`.
    ///
    /// # Errors
    ///
    /// `EINVAL` beyond the end, or if the address is not aligned.
    #[inline]
    fn word<T>(&self, offset: u64) -> Result<*mut T> {
        let word: *mut T = self.at(offset as usize, core::mem::size_of::<T>())?.cast();
        word.is_aligned().then_some(word).ok_or(EINVAL)
    }

    /// Reads a value like a register.
    ///
    /// # Errors
    ///
    /// `EINVAL` beyond the end, or if the address is not aligned.
    #[inline]
    pub(crate) fn load(&self, at: Access) -> Result<u32> {
        // SAFETY: `word` has checked the address. The access is volatile because userspace may
        // write concurrently.
        Ok(unsafe {
            match at.width {
                Width::Byte => self.word::<u8>(at.offset)?.read_volatile().into(),
                Width::Word => u16::from_le(self.word::<u16>(at.offset)?.read_volatile()).into(),
                Width::Long => u32::from_le(self.word::<u32>(at.offset)?.read_volatile()),
            }
        })
    }

    /// Writes a value like a register.
    ///
    /// # Errors
    ///
    /// `EINVAL` beyond the end, or if the address is not aligned.
    #[inline]
    pub(crate) fn store(&self, at: Access, value: u32) -> Result {
        // SAFETY: `word` has checked the address. The access is volatile because userspace may read
        // concurrently.
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

    /// Copies bytes to userspace.
    ///
    /// # Errors
    ///
    /// `EINVAL` beyond the end, `EFAULT`.
    pub(crate) fn copy_to_user(&self, offset: usize, to: UserPtr, len: usize) -> Result {
        let from = self.at(offset, len)?;
        // SAFETY: `at` has checked the range. The function checks the user range.
        let left = unsafe { bindings::kernel_ext_copy_to_user(to.as_mut_ptr(), from, len) };
        (left == 0).then_some(()).ok_or(EFAULT)
    }

    /// Copies bytes from userspace.
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

    /// Maps the bytes at `offset`, which must be page aligned, into a new VMA.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the VMA is longer than the rest of the memory, `ENOMEM`.
    ///
    /// # Safety
    ///
    /// The memory must outlive the mapping, which holds no references to the pages.
    pub(crate) unsafe fn map(&self, offset: usize, vma: &VmaNew) -> Result {
        let start = self.at(offset, vma.end() - vma.start())?;
        // SAFETY: By the type invariant these are whole pages, and `at` has checked the range. By
        // this function's contract they outlive the mapping.
        to_result(unsafe { bindings::kernel_ext_remap_memory(vma.as_ptr(), start) })
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        let start: *const c_void = self.start.as_ptr().cast();
        // SAFETY: By the type invariant. By the contract of `map` the pages are not mapped any
        // more.
        unsafe {
            match self.len {
                PAGE_SIZE => bindings::free_pages(start as usize, 0),
                _ => bindings::vfree(start),
            }
        }
    }
}

/// Prevents other crates from implementing [`Store`].
pub trait Sealed {}

/// A source or target of [`copy`]: [`DeviceMemory`] and [`GuestPages`](crate::GuestPages).
///
/// # Safety
///
/// The `len` bytes at the address that `direct` returns can be read and written as long as `self`
/// is borrowed.
pub unsafe trait Store: Sealed {
    /// Returns the address of a range, if the store has addresses.
    #[doc(hidden)]
    fn direct(&self, offset: usize, len: usize) -> Option<Result<*mut c_void>>;

    /// Copies `len` bytes at `offset` to `to`.
    ///
    /// # Safety
    ///
    /// `to` is valid for writes of `len` bytes.
    #[doc(hidden)]
    unsafe fn get(&self, offset: usize, to: *mut c_void, len: usize) -> Result;

    /// Copies `len` bytes from `from` to `offset`.
    ///
    /// # Safety
    ///
    /// `from` is valid for reads of `len` bytes.
    #[doc(hidden)]
    unsafe fn put(&self, offset: usize, from: *const c_void, len: usize) -> Result;
}

/// Copies `len` bytes from one store to another. Both may be the same store and the ranges may
/// overlap, unless both are guest pages.
///
/// # Errors
///
/// `EINVAL` beyond the end of a store, `ENODEV` for pages that have been unpinned, `EACCES` for
/// pages that were not pinned for this access, `ENOMEM`. Some of the bytes may have been copied.
pub fn copy(
    to: &impl Store,
    to_offset: usize,
    from: &impl Store,
    from_offset: usize,
    len: usize,
) -> Result {
    if let Some(address) = to.direct(to_offset, len) {
        // SAFETY: By the contract of the trait, `address` is valid for `len` bytes.
        return unsafe { from.get(from_offset, address?, len) };
    }
    if let Some(address) = from.direct(from_offset, len) {
        // SAFETY: As above.
        return unsafe { to.put(to_offset, address?, len) };
    }
    let mut between = KVec::<u8>::from_elem(0, PAGE_SIZE.min(len), GFP_KERNEL)?;
    let mut done = 0;
    while done < len {
        let step = between.len().min(len - done);
        let end = |offset: usize| offset.checked_add(done).ok_or(EINVAL);
        // SAFETY: The buffer has `step` bytes.
        unsafe {
            from.get(end(from_offset)?, between.as_mut_ptr().cast(), step)?;
            to.put(end(to_offset)?, between.as_ptr().cast(), step)?;
        }
        done += step;
    }
    Ok(())
}

impl Sealed for DeviceMemory {}

// SAFETY: `at` checks the ranges, and the memory is valid as long as `self`.
unsafe impl Store for DeviceMemory {
    fn direct(&self, offset: usize, len: usize) -> Option<Result<*mut c_void>> {
        Some(self.at(offset, len))
    }

    unsafe fn get(&self, offset: usize, to: *mut c_void, len: usize) -> Result {
        let from = self.at(offset, len)?;
        // SAFETY: By this function's contract. `at` has checked the range of this memory. The
        // ranges may overlap.
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
