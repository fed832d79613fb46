// SPDX-License-Identifier: GPL-2.0

//! Task names and numbers for log messages.

use kernel::{
    fmt,
    prelude::*,
    str::BStr,
    task::Task, //
};

use crate::bindings;

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
