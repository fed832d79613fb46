// SPDX-License-Identifier: GPL-2.0

//! The calling task, for messages.

use kernel::{
    fmt,
    prelude::*,
    str::BStr, //
};

use crate::bindings;

/// A task's name and number, as in `qemu-system-x86 (4711)`.
#[derive(Clone, Copy)]
pub struct Caller {
    comm: [u8; 16],
    pid: i32,
}

impl Caller {
    /// The calling task.
    pub fn current() -> Self {
        let mut comm = [0; 16];
        let task = current!().as_ptr();
        // SAFETY: Both buffers have 16 bytes, and a task's name always ends in a zero byte.
        unsafe {
            bindings::sized_strscpy(
                comm.as_mut_ptr(),
                (&raw const (*task).comm).cast(),
                comm.len(),
            )
        };
        Self {
            comm,
            pid: current!().pid(),
        }
    }

    /// The task's name, padded with zero bytes, the last of which is one.
    pub fn comm(&self) -> [u8; 16] {
        self.comm
    }

    /// The task's name.
    pub fn name(&self) -> &BStr {
        let length = self.comm.iter().position(|&c| c == 0);
        BStr::from_bytes(&self.comm[..length.unwrap_or(self.comm.len())])
    }

    /// The task's number.
    pub fn pid(&self) -> i32 {
        self.pid
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_fmt(fmt!("{} ({})", self.name(), self.pid))
    }
}
