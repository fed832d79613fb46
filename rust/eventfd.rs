// SPDX-License-Identifier: GPL-2.0

//! Eventfds: notifications to userspace.
//!
//! C header: [`include/linux/eventfd.h`](srctree/include/linux/eventfd.h)

use core::ptr::NonNull;

use kernel::{
    error::from_err_ptr,
    ffi::c_int,
    prelude::*, //
};

use crate::bindings;

/// A reference to an eventfd. It stays valid when the process closes the eventfd.
///
/// # Invariants
///
/// The pointer is valid, and this value owns one reference.
pub struct EventFd(NonNull<bindings::eventfd_ctx>);

// SAFETY: Eventfds are reference counted, and not bound to a thread.
unsafe impl Send for EventFd {}

// SAFETY: An eventfd has its own lock.
unsafe impl Sync for EventFd {}

impl EventFd {
    /// Returns the eventfd with the descriptor `fd` of the calling process.
    ///
    /// # Errors
    ///
    /// `EBADF` if there is no such file; `EINVAL` if it isn't an eventfd.
    pub fn from_fd(fd: c_int) -> Result<Self> {
        // SAFETY: The function accepts any number.
        let context = from_err_ptr(unsafe { bindings::eventfd_ctx_fdget(fd) })?;
        // INVARIANT: The function returned a counted reference.
        Ok(Self(NonNull::new(context).ok_or(EINVAL)?))
    }

    /// Adds one to the counter, which wakes waiting threads. Doesn't sleep.
    pub fn signal(&self) {
        // SAFETY: The context is valid, by the type invariant.
        unsafe { bindings::eventfd_signal_mask(self.0.as_ptr(), 0) };
    }
}

impl Drop for EventFd {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this value owns the reference.
        unsafe { bindings::eventfd_ctx_put(self.0.as_ptr()) };
    }
}
