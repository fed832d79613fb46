// SPDX-License-Identifier: GPL-2.0

//! Request statistics, which debugfs shows.

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

/// Request statistics by kind of request.
pub(crate) struct Stats {
    /// Map requests, including those that only set a vaddr.
    pub(crate) map: RequestStats,
    /// Unmap requests, including those that only invalidate vaddrs.
    pub(crate) unmap: RequestStats,
    /// Attaching and detaching groups.
    pub(crate) groups: RequestStats,
}

impl Stats {
    /// Creates statistics without requests.
    pub(crate) const fn new() -> Self {
        Self {
            map: RequestStats::new(),
            unmap: RequestStats::new(),
            groups: RequestStats::new(),
        }
    }
}

/// Statistics of one kind of request: their number and their total duration.
pub(crate) struct RequestStats {
    requests: Atomic<u64>,
    ticks: Atomic<u64>,
}

impl RequestStats {
    /// Creates statistics without requests.
    const fn new() -> Self {
        Self {
            requests: Atomic::new(0),
            ticks: Atomic::new(0),
        }
    }

    /// Calls `f`, and counts it and its duration as one request.
    pub(crate) fn measure<R>(&self, f: impl FnOnce() -> R) -> R {
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

impl fmt::Display for RequestStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests = self.requests.load(Relaxed);
        let ms = milliseconds(self.ticks.load(Relaxed));
        f.write_fmt(fmt!("{requests} requests, {ms} ms"))
    }
}
