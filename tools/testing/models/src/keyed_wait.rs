// SPDX-License-Identifier: GPL-2.0

//! `kernel_ext::keyed_wait`, on top of loom's condition variables.

use std::cell::Cell;

use loom::sync::Condvar;

use crate::{
    prelude::PinInit,
    sync::lock::{
        mutex::MutexBackend,
        Guard, //
    },
};

/// More keys than a model uses.
const KEYS: usize = 32;

loom::thread_local! {
    static KILLED: Cell<bool> = Cell::new(false);
}

/// Kills the calling thread: from now on it waits only where it must.
pub fn kill() {
    KILLED.with(|killed| killed.set(true));
}

/// Threads that sleep, each until its key is woken.
pub struct KeyedWait(Vec<Condvar>);

impl KeyedWait {
    /// Nobody sleeps yet.
    pub fn new() -> impl PinInit<Self> {
        || Self((0..KEYS).map(|_| Condvar::new()).collect())
    }

    /// Lets go of the mutex, waits until the key is woken, and takes the mutex again. A killed
    /// thread doesn't wait if that is `killable`.
    pub fn wait<'a, T>(
        &self,
        key: u64,
        guard: Guard<'a, T, MutexBackend>,
        killable: bool,
    ) -> (Guard<'a, T, MutexBackend>, bool) {
        if killable && KILLED.with(Cell::get) {
            return (guard.again(), true);
        }
        let guard = guard.exchange(|inner| {
            let woken = self.of(key).wait(inner);
            woken.unwrap_or_else(|poisoned| poisoned.into_inner())
        });
        (guard, false)
    }

    /// Wakes all threads that wait for a key.
    pub fn wake(&self, key: u64) {
        self.of(key).notify_all();
    }

    /// Wakes one of them: for a mutant.
    #[allow(dead_code)]
    pub fn wake_one(&self, key: u64) {
        self.of(key).notify_one();
    }

    fn of(&self, key: u64) -> &Condvar {
        self.0
            .get(key as usize)
            .expect("the model has too many requests")
    }
}
