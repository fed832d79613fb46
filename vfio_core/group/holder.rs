// SPDX-License-Identifier: GPL-2.0

//! Who holds a group or a device, for messages and for those who ask.

use kernel::{
    fmt,
    prelude::*,
    time::{
        Instant,
        Monotonic, //
    }, //
};
use kernel_ext::task::TaskLabel;

/// The task that opened something, and when.
#[derive(Clone, Copy)]
pub(crate) struct Holder {
    pub(crate) task: TaskLabel,
    since: Instant<Monotonic>,
}

impl Holder {
    /// The calling task, from now on.
    pub(crate) fn current() -> Self {
        Self {
            task: TaskLabel::current(),
            since: Instant::now(),
        }
    }

    /// For how long, in milliseconds.
    pub(crate) fn held_ms(&self) -> u64 {
        self.since.elapsed().as_millis().unsigned_abs()
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_fmt(fmt!("{}, for {} s", self.task, self.held_ms() / 1000))
    }
}
