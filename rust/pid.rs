// SPDX-License-Identifier: GPL-2.0

//! Process ids, which differ between PID namespaces.
//!
//! C header: [`include/linux/pid.h`](srctree/include/linux/pid.h)

use core::ptr::NonNull;

use kernel::prelude::*;

use crate::bindings;

/// The identity of a process, which outlives it.
///
/// # Invariants
///
/// The pointer is valid, and this value owns one reference.
pub struct ProcessId(NonNull<bindings::pid>);

// SAFETY: A `struct pid` is reference counted, and isn't bound to a thread.
unsafe impl Send for ProcessId {}

// SAFETY: The fields that are read don't change.
unsafe impl Sync for ProcessId {}

impl ProcessId {
    /// Returns the identity of the calling process.
    pub fn current() -> Self {
        // SAFETY: The calling task has not exited, so it has a process.
        let pid =
            unsafe { bindings::get_task_pid(current!().as_ptr(), bindings::pid_type_PIDTYPE_TGID) };
        // SAFETY: A task that has not exited has a `struct pid` of each type.
        // INVARIANT: The function returned a counted reference.
        Self(unsafe { NonNull::new_unchecked(pid) })
    }

    /// Returns the number of the process in the PID namespace of the caller, or `None` if it isn't
    /// visible there.
    pub fn number_for_current(&self) -> Option<u32> {
        // SAFETY: By the type invariant.
        let number = unsafe { bindings::pid_vnr(self.0.as_ptr()) };
        u32::try_from(number).ok().filter(|&number| number > 0)
    }
}

impl Drop for ProcessId {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this value owns the reference.
        unsafe { bindings::put_pid(self.0.as_ptr()) };
    }
}
