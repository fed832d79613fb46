// SPDX-License-Identifier: GPL-2.0

//! The holders of groups and devices, for log messages and for requests that report them.

use kernel::{
    fmt,
    prelude::*,
    str::BStr,
    time::{
        Instant,
        Monotonic, //
    }, //
};
use kernel_ext::task::{
    ProcessId,
    TaskLabel, //
};

/// The task that opened a group or device, and the time at which it did.
pub(crate) struct Holder {
    task: TaskLabel,
    process: ProcessId,
    since: Instant<Monotonic>,
}

impl Holder {
    /// Creates a holder for the calling task, starting now.
    pub(crate) fn current() -> Self {
        Self {
            task: TaskLabel::current(),
            process: ProcessId::current(),
            since: Instant::now(),
        }
    }

    /// Returns the time since the open, in milliseconds.
    fn held_ms(&self) -> u64 {
        self.since.elapsed().as_millis().unsigned_abs()
    }

    /// Returns the holder in the form used by log messages.
    pub(super) fn label(&self) -> HolderLabel {
        HolderLabel {
            task: self.task,
            seconds: self.held_ms() / 1000,
        }
    }

    /// Returns the information about the holder that the calling process may see.
    pub(super) fn seen(&self) -> SeenHolder {
        SeenHolder {
            pid: self.process.number_for_current().unwrap_or(0),
            comm: self.task.comm(),
            held_ms: self.held_ms().max(1),
        }
    }
}

/// A holder in the form used by log messages, with its PID in the initial PID namespace.
#[derive(Clone, Copy)]
pub(super) struct HolderLabel {
    task: TaskLabel,
    seconds: u64,
}

impl fmt::Display for HolderLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_fmt(fmt!("{}, for {} s", self.task, self.seconds))
    }
}

/// A holder in the form that one process may see.
#[derive(Clone, Copy)]
pub(super) struct SeenHolder {
    /// The PID in that process's PID namespace, or zero if the holder is not visible there.
    pub(super) pid: u32,
    /// The name of the task, padded with zero bytes.
    pub(super) comm: [u8; 16],
    /// The time since the open in milliseconds, at least one.
    pub(super) held_ms: u64,
}

impl fmt::Display for SeenHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.comm.iter().position(|&c| c == 0);
        let name = BStr::from_bytes(&self.comm[..length.unwrap_or(self.comm.len())]);
        let seconds = self.held_ms / 1000;
        f.write_fmt(fmt!("{} ({}), for {} s", name, self.pid, seconds))
    }
}
