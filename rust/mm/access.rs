// SPDX-License-Identifier: GPL-2.0

//! Reading and writing the memory of the process that mapped it.

use kernel::{
    mm::MmWithUser,
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};

use crate::bindings;

use super::Owner;

/// Whether `size` bytes at `address` can be user memory at all.
pub fn is_user_range(address: UserPtr, size: usize) -> bool {
    // SAFETY: It compares numbers only.
    unsafe { bindings::kernel_ext_access_ok(address.as_const_ptr(), size) }
}

/// A kernel thread that uses the memory of a process, until this is dropped.
struct Borrowed<'a>(&'a MmWithUser);

impl<'a> Borrowed<'a> {
    /// Makes the calling kernel thread use `mm`.
    ///
    /// # Safety
    ///
    /// The caller is a kernel thread that uses no process's memory.
    unsafe fn new(mm: &'a MmWithUser) -> Self {
        // SAFETY: By the contract of this function; `mm` has users.
        unsafe { bindings::kthread_use_mm(mm.as_raw()) };
        Self(mm)
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        // SAFETY: The thread uses this memory since `new`.
        unsafe { bindings::kthread_unuse_mm(self.0.as_raw()) };
    }
}

impl Owner {
    /// Calls `f` where user addresses are those of this owner.
    ///
    /// # Errors
    ///
    /// `EPERM` if the owner has exited; `EFAULT` in another process; what `f` returned.
    fn with_memory(&self, f: impl FnOnce() -> Result) -> Result {
        let mm = self.memory().ok_or(EPERM)?;
        let current = kernel::current!();
        match current.mm() {
            Some(own) if own.as_raw() == mm.as_raw() => f(),
            Some(_) => Err(EFAULT),
            None => {
                // SAFETY: Only the task itself changes the bit, and `current` is the calling task.
                if unsafe { (*current.as_ptr()).flags } & bindings::PF_KTHREAD == 0 {
                    // A process that is exiting.
                    return Err(EFAULT);
                }
                // SAFETY: It is a kernel thread, and uses no memory, as was seen.
                let _borrowed = unsafe { Borrowed::new(&mm) };
                f()
            }
        }
    }

    /// Copies `data` to the owner's memory at `address`.
    ///
    /// # Errors
    ///
    /// `EPERM` if the owner has exited; `EFAULT` in another process, or if not all can be written.
    pub fn write(&self, address: usize, data: &[u8]) -> Result {
        self.with_memory(|| {
            let user = UserSlice::new(UserPtr::from_addr(address), data.len());
            user.writer().write_slice(data)
        })
    }

    /// Fills `data` from the owner's memory at `address`.
    ///
    /// # Errors
    ///
    /// `EPERM` if the owner has exited; `EFAULT` in another process, or if not all can be read.
    pub fn read(&self, address: usize, data: &mut [u8]) -> Result {
        self.with_memory(|| {
            let user = UserSlice::new(UserPtr::from_addr(address), data.len());
            user.reader().read_slice(data)
        })
    }
}
