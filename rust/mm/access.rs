// SPDX-License-Identifier: GPL-2.0

//! Reads and writes the user memory of the process that mapped it.

use kernel::{
    mm::MmWithUser,
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};

use crate::{
    bindings,
    task::is_kernel_thread, //
};

use super::Owner;

/// Returns whether the `size` bytes at `address` are in the range of user addresses.
#[inline]
pub fn is_user_range(address: UserPtr, size: usize) -> bool {
    // SAFETY: The function only compares numbers.
    unsafe { bindings::kernel_ext_access_ok(address.as_const_ptr(), size) }
}

/// A kernel thread's use of the memory of a process; dropping it ends the use.
struct Borrowed<'a>(&'a MmWithUser);

impl<'a> Borrowed<'a> {
    /// Makes the calling kernel thread use `mm`.
    ///
    /// # Safety
    ///
    /// The caller is a kernel thread that does not use the memory of any process.
    unsafe fn new(mm: &'a MmWithUser) -> Self {
        // SAFETY: By the contract of this function; `mm` has users.
        unsafe { bindings::kthread_use_mm(mm.as_raw()) };
        Self(mm)
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        // SAFETY: The thread has used this memory since `new`.
        unsafe { bindings::kthread_unuse_mm(self.0.as_raw()) };
    }
}

impl Owner {
    /// Calls `f` in a context in which user addresses refer to the memory of this owner.
    ///
    /// # Errors
    ///
    /// `EPERM` if the owner has exited; `EFAULT` if the caller is another process, or a process
    /// that is exiting; the error that `f` returned.
    fn with_memory<R>(&self, f: impl FnOnce() -> Result<R>) -> Result<R> {
        let mm = self.memory().ok_or(EPERM)?;
        let current = kernel::current!();
        match current.mm() {
            Some(own) if own.as_raw() == mm.as_raw() => f(),
            Some(_) => Err(EFAULT),
            None => {
                if !is_kernel_thread() {
                    // The calling process is exiting.
                    return Err(EFAULT);
                }
                // SAFETY: The checks above show that this is a kernel thread, and that it uses no
                // process's memory.
                let _borrowed = unsafe { Borrowed::new(&mm) };
                f()
            }
        }
    }

    /// Copies `data` to the owner's memory at `address`. Returns the number of bytes up to the
    /// first one that can't be written, or all.
    ///
    /// # Errors
    ///
    /// `EPERM` if the owner has exited; `EFAULT` if the caller is another process. Nothing was
    /// written then.
    pub fn write(&self, address: usize, data: &[u8]) -> Result<usize> {
        self.with_memory(|| {
            let to = UserPtr::from_addr(address).as_mut_ptr();
            // SAFETY: `data` can be read. The function checks that `to` is user memory.
            let left =
                unsafe { bindings::kernel_ext_copy_to_user(to, data.as_ptr().cast(), data.len()) };
            Ok(data.len().saturating_sub(left))
        })
    }

    /// Copies from the owner's memory at `address` to `data`.
    ///
    /// # Errors
    ///
    /// `EPERM` if the owner has exited; `EFAULT` if the caller is another process, or if part of
    /// the range can't be read.
    pub fn read(&self, address: usize, data: &mut [u8]) -> Result {
        self.with_memory(|| {
            let user = UserSlice::new(UserPtr::from_addr(address), data.len());
            user.reader().read_slice(data)
        })
    }
}
