// SPDX-License-Identifier: GPL-2.0

//! Copying between the memory of devices and that of programs.

use kernel::{
    ffi::c_void,
    page::PAGE_SIZE,
    prelude::*, //
};

/// Keeps [`Store`] to this crate.
pub trait Sealed {}

/// What [`copy`] copies to and from: [`Memory`](crate::Memory) and [`GuestPages`](crate::GuestPages).
///
/// # Safety
///
/// What `direct` returns can be read and written, `len` bytes, as long as `self` is borrowed.
pub unsafe trait Store: Sealed {
    /// The address of a range, for a store that has one.
    #[doc(hidden)]
    fn direct(&self, offset: usize, len: usize) -> Option<Result<*mut c_void>>;

    /// Copies out `len` bytes from `offset` on.
    ///
    /// # Safety
    ///
    /// `to` can be written, `len` bytes.
    #[doc(hidden)]
    unsafe fn get(&self, offset: usize, to: *mut c_void, len: usize) -> Result;

    /// Copies in `len` bytes from `offset` on.
    ///
    /// # Safety
    ///
    /// `from` can be read, `len` bytes.
    #[doc(hidden)]
    unsafe fn put(&self, offset: usize, from: *const c_void, len: usize) -> Result;
}

/// Copies `len` bytes from one memory to another. They may be the same one and the ranges overlap,
/// unless both are guest pages.
///
/// # Errors
///
/// `EINVAL` beyond an end, `ENODEV` for pages that were unpinned, `EACCES` for pages that may only be
/// read, `ENOMEM`. Part of the bytes may have been copied then.
pub fn copy(
    to: &impl Store,
    to_offset: usize,
    from: &impl Store,
    from_offset: usize,
    len: usize,
) -> Result {
    if let Some(address) = to.direct(to_offset, len) {
        // SAFETY: By the contract of the trait.
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
