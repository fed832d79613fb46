// SPDX-License-Identifier: GPL-2.0

//! Statistics on the time that requests take.

use kernel::{
    fmt,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

use kernel_ext::ticks::{
    milliseconds,
    Ticks, //
};

/// The number of requests of one kind, and their total duration.
pub(crate) struct Spent {
    requests: Atomic<u64>,
    ticks: Atomic<u64>,
}

impl Spent {
    /// Creates statistics without requests.
    pub(crate) const fn new() -> Self {
        Self {
            requests: Atomic::new(0),
            ticks: Atomic::new(0),
        }
    }

    /// Calls `f`, and counts it as one request.
    pub(crate) fn count<R>(&self, f: impl FnOnce() -> R) -> R {
        let start = Ticks::now();
        let result = f();
        self.requests.fetch_add(1, Relaxed);
        let ticks = start.elapsed();
        if ticks != 0 {
            self.ticks.fetch_add(ticks, Relaxed);
        }
        result
    }
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests = self.requests.load(Relaxed);
        let ms = milliseconds(self.ticks.load(Relaxed));
        f.write_fmt(fmt!("{requests} requests, {ms} ms"))
    }
}
