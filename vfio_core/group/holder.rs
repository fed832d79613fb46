// SPDX-License-Identifier: GPL-2.0

//! The holders of groups and devices, for messages and for requests that ask for them.

use kernel::{
    fmt,
    prelude::*,
    str::BStr,
    time::{
        Instant,
        Monotonic, //
    }, //
};
use kernel_ext::{
    pid::ProcessId,
    task::TaskLabel, //
};

/// The task that opened something, and when.
pub(crate) struct Holder {
    task: TaskLabel,
    process: ProcessId,
    since: Instant<Monotonic>,
}

impl Holder {
    /// The calling task, from now on.
    pub(crate) fn current() -> Self {
        Self {
            task: TaskLabel::current(),
            process: ProcessId::current(),
            since: Instant::now(),
        }
    }

    /// For how long, in milliseconds.
    fn held_ms(&self) -> u64 {
        self.since.elapsed().as_millis().unsigned_abs()
    }

    /// The holder as the log names it.
    pub(super) fn label(&self) -> HolderLabel {
        HolderLabel {
            task: self.task,
            seconds: self.held_ms() / 1000,
        }
    }

    /// What the calling process may know of the holder.
    pub(super) fn seen(&self) -> SeenHolder {
        SeenHolder {
            pid: self.process.number_for_current().unwrap_or(0),
            comm: self.task.comm(),
            held_ms: self.held_ms().max(1),
        }
    }
}

/// A holder as the log names it, with its number in the initial PID namespace.
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

/// A holder as one process sees it.
#[derive(Clone, Copy)]
pub(super) struct SeenHolder {
    /// Its number in the PID namespace of that process, zero if it is not visible there.
    pub(super) pid: u32,
    /// Its name, padded with zero bytes.
    pub(super) comm: [u8; 16],
    /// For how long, in milliseconds, at least one.
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
