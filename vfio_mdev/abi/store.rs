// SPDX-License-Identifier: GPL-2.0

//! Copying between the memory of devices and the memory of processes.

use kernel::{
    ffi::c_void,
    page::PAGE_SIZE,
    prelude::*, //
};

/// Prevents other crates from implementing [`Store`].
pub trait Sealed {}

/// A source or target of [`copy`]: [`Memory`](crate::Memory) and [`GuestPages`](crate::GuestPages).
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
