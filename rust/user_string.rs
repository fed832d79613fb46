// SPDX-License-Identifier: GPL-2.0

//! Strings of unknown length from userspace.
//!
//! C header: [`include/linux/string.h`](srctree/include/linux/string.h)

use core::{
    ops::Deref,
    ptr::NonNull, //
};

use kernel::{
    error::from_err_ptr,
    ffi::c_char,
    prelude::*,
    uaccess::UserPtr, //
};

use crate::bindings;

/// A copy of a string from userspace, including its terminator.
///
/// # Invariants
///
/// The pointer is to an allocation of `strndup_user()` of at least `length` bytes. The last of
/// these is zero.
pub struct UserString {
    bytes: NonNull<u8>,
    length: usize,
}

impl UserString {
    /// Copies the string at `string`. The maximum length, including the terminator, is `limit`
    /// bytes.
    ///
    /// # Errors
    ///
    /// `EFAULT` if it can't be read; `EINVAL` if it is longer; `ENOMEM`.
    pub fn copy(string: UserPtr, limit: usize) -> Result<Self> {
        // SAFETY: The callee checks the address.
        let bytes = from_err_ptr(unsafe {
            bindings::strndup_user(string.as_const_ptr().cast(), limit as isize)
        })?;
        // SAFETY: The result is a string with its terminator.
        let length = unsafe { CStr::from_char_ptr(bytes) }
            .to_bytes_with_nul()
            .len();
        // SAFETY: `strndup_user` returns an error pointer or a non-null pointer.
        let bytes = unsafe { NonNull::new_unchecked(bytes.cast()) };
        // INVARIANT: As above.
        Ok(Self { bytes, length })
    }

    /// Returns the string, for a C function that may modify it but leaves the terminator in place.
    pub fn as_mut_ptr(&mut self) -> *mut c_char {
        self.bytes.as_ptr().cast()
    }
}

impl Deref for UserString {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: By the type invariant.
        unsafe { core::slice::from_raw_parts(self.bytes.as_ptr(), self.length) }
    }
}

impl Drop for UserString {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::kfree(self.bytes.as_ptr().cast()) }
    }
}
