// SPDX-License-Identifier: GPL-2.0

//! How much time requests take.

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

/// How many requests of one kind there were, and how long they took altogether.
pub(crate) struct Spent {
    requests: Atomic<u64>,
    ticks: Atomic<u64>,
}

impl Spent {
    /// There were none.
    pub(crate) const fn new() -> Self {
        Self {
            requests: Atomic::new(0),
            ticks: Atomic::new(0),
        }
    }

    /// Counts a request, which is to call `f`.
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
