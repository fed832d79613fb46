// SPDX-License-Identifier: GPL-2.0

//! How much time requests take.

use kernel::{
    fmt,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    time::{
        Instant,
        Monotonic,
        NSEC_PER_MSEC, //
    },
};

/// How many requests of one kind there were, and how long they took altogether.
pub(crate) struct Spent {
    requests: Atomic<u64>,
    nanoseconds: Atomic<u64>,
}

impl Spent {
    /// There were none.
    pub(crate) const fn new() -> Self {
        Self {
            requests: Atomic::new(0),
            nanoseconds: Atomic::new(0),
        }
    }

    /// Counts a request, which is to call `f`.
    pub(crate) fn count<R>(&self, f: impl FnOnce() -> R) -> R {
        let start = Instant::<Monotonic>::now();
        let result = f();
        let spent = start.elapsed().as_nanos().unsigned_abs();
        self.requests.fetch_add(1, Relaxed);
        self.nanoseconds.fetch_add(spent, Relaxed);
        result
    }
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests = self.requests.load(Relaxed);
        let ms = self.nanoseconds.load(Relaxed) / NSEC_PER_MSEC.unsigned_abs();
        f.write_fmt(fmt!("{requests} requests, {ms} ms"))
    }
}
