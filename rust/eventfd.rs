// SPDX-License-Identifier: GPL-2.0

//! Eventfds: the way to wake a program.
//!
//! C header: [`include/linux/eventfd.h`](srctree/include/linux/eventfd.h)

use core::ptr::NonNull;

use kernel::{
    error::from_err_ptr,
    ffi::c_int,
    prelude::*, //
};

use crate::bindings;

/// A reference to an eventfd of a program, which lives on when the program closes it.
///
/// # Invariants
///
/// The pointer is valid, and owns one reference.
pub struct EventFd(NonNull<bindings::eventfd_ctx>);

// SAFETY: References to eventfds are counted, and belong to no thread.
unsafe impl Send for EventFd {}

// SAFETY: An eventfd has a lock of its own.
unsafe impl Sync for EventFd {}

impl EventFd {
    /// The eventfd that has the descriptor `fd` in the calling process.
    ///
    /// # Errors
    ///
    /// `EBADF` if there is no such file, `EINVAL` if it is no eventfd.
    pub fn from_fd(fd: c_int) -> Result<Self> {
        // SAFETY: Any number may be asked for.
        let context = from_err_ptr(unsafe { bindings::eventfd_ctx_fdget(fd) })?;
        // INVARIANT: The function returned a counted reference.
        Ok(Self(NonNull::new(context).ok_or(EINVAL)?))
    }

    /// Adds one to the counter, which wakes who waits. Doesn't sleep.
    pub fn signal(&self) {
        // SAFETY: The context is valid, by the type invariant.
        unsafe { bindings::eventfd_signal_mask(self.0.as_ptr(), 0) };
    }
}

impl Drop for EventFd {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the reference is ours.
        unsafe { bindings::eventfd_ctx_put(self.0.as_ptr()) };
    }
}
