// SPDX-License-Identifier: GPL-2.0

//! The calling task: its capabilities, the identity of its process, and its name for log messages.
//!
//! C headers: [`include/linux/capability.h`](srctree/include/linux/capability.h),
//! [`include/linux/pid.h`](srctree/include/linux/pid.h),
//! [`include/linux/sched.h`](srctree/include/linux/sched.h)

use core::ptr::NonNull;

use kernel::{
    ffi::c_int,
    fmt,
    prelude::*,
    str::BStr,
    task::Task, //
};

use crate::bindings;

/// Returns whether the calling task is a kernel thread. It may use the memory of a process.
pub(crate) fn is_kernel_thread() -> bool {
    let current = kernel::current!();
    // SAFETY: Only the task itself changes the bit, and `current` is the calling task.
    unsafe { (*current.as_ptr()).flags & bindings::PF_KTHREAD != 0 }
}

/// A capability that VFIO checks.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Capability {
    /// `CAP_SYS_RAWIO`: required for devices without IOMMU protection.
    SysRawio = bindings::CAP_SYS_RAWIO,
    /// `CAP_IPC_LOCK`: exempts from the limit on locked memory.
    IpcLock = bindings::CAP_IPC_LOCK,
    /// `CAP_SYS_ADMIN`: permits reading physical addresses.
    SysAdmin = bindings::CAP_SYS_ADMIN,
}

impl Capability {
    /// Returns whether the calling task has the capability in the initial user namespace.
    pub fn held(self) -> bool {
        // SAFETY: `capable` only looks at `current`.
        unsafe { bindings::capable(self as c_int) }
    }
}

/// The identity of a process, which outlives it. Its number differs between PID namespaces.
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

    /// Returns whether the process has exited, so that another one can get its number.
    pub fn has_exited(&self) -> bool {
        // SAFETY: By the type invariant.
        !unsafe { bindings::kernel_ext_pid_has_process(self.0.as_ptr()) }
    }

    /// Returns the number of the process in the PID namespace of the caller, or `None` if it isn't
    /// visible there, or has exited.
    pub fn number_for_current(&self) -> Option<u32> {
        if self.has_exited() {
            return None;
        }
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

/// A task's name and number, as in `qemu-system-x86 (4711)`.
#[derive(Clone, Copy)]
pub struct TaskLabel {
    comm: [u8; 16],
    pid: i32,
}

impl TaskLabel {
    /// Returns the label of the calling task.
    pub fn current() -> Self {
        Self::of(current!())
    }

    /// Returns the label of `task`.
    pub fn of(task: &Task) -> Self {
        let mut comm = [0; 16];
        // SAFETY: Both buffers have 16 bytes, and a task's name always ends in a zero byte.
        unsafe {
            bindings::sized_strscpy(
                comm.as_mut_ptr(),
                (&raw const (*task.as_ptr()).comm).cast(),
                comm.len(),
            )
        };
        Self {
            comm,
            pid: task.pid(),
        }
    }

    /// Returns the task's name, padded with zero bytes. The last byte is always zero.
    pub fn comm(&self) -> [u8; 16] {
        self.comm
    }

    /// Returns the task's name.
    pub fn name(&self) -> &BStr {
        let length = self.comm.iter().position(|&c| c == 0);
        BStr::from_bytes(&self.comm[..length.unwrap_or(self.comm.len())])
    }

    /// Returns the task's number.
    pub fn pid(&self) -> i32 {
        self.pid
    }
}

impl fmt::Display for TaskLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_fmt(fmt!("{} ({})", self.name(), self.pid))
    }
}
