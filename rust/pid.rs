// SPDX-License-Identifier: GPL-2.0

//! Processes by their numbers, which each PID namespace has its own of.
//!
//! C header: [`include/linux/pid.h`](srctree/include/linux/pid.h)

use core::ptr::NonNull;

use kernel::prelude::*;

use crate::bindings;

/// The identity of a process, which outlives it.
///
/// # Invariants
///
/// The pointer is valid, and owns one reference.
pub struct ProcessId(NonNull<bindings::pid>);

// SAFETY: References to a `struct pid` are counted, and belong to no thread.
unsafe impl Send for ProcessId {}

// SAFETY: What is read of it does not change.
unsafe impl Sync for ProcessId {}

impl ProcessId {
    /// That of the calling process.
    pub fn current() -> Self {
        // SAFETY: The calling task has not exited, so it has a process.
        let pid =
            unsafe { bindings::get_task_pid(current!().as_ptr(), bindings::pid_type_PIDTYPE_TGID) };
        // SAFETY: A task that has not exited has a `struct pid` of each type.
        // INVARIANT: The function returned a counted reference.
        Self(unsafe { NonNull::new_unchecked(pid) })
    }

    /// Its number in the PID namespace of the calling process, `None` if it is not visible there.
    pub fn number_for_current(&self) -> Option<u32> {
        // SAFETY: By the type invariant.
        let number = unsafe { bindings::pid_vnr(self.0.as_ptr()) };
        u32::try_from(number).ok().filter(|&number| number > 0)
    }
}

impl Drop for ProcessId {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the reference is ours.
        unsafe { bindings::put_pid(self.0.as_ptr()) };
    }
}
