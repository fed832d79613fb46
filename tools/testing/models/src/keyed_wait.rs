// SPDX-License-Identifier: GPL-2.0

//! `kernel_ext::keyed_wait`, on top of loom's condition variables.

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

/// Threads that sleep, each until its key is woken.
pub struct KeyedWait(Vec<Condvar>);

impl KeyedWait {
    /// Nobody sleeps yet.
    pub fn new() -> impl PinInit<Self> {
        || Self((0..KEYS).map(|_| Condvar::new()).collect())
    }

    /// Lets go of the mutex, waits until the key is woken, and takes the mutex again.
    pub fn wait<'a, T>(
        &self,
        key: u64,
        guard: Guard<'a, T, MutexBackend>,
    ) -> Guard<'a, T, MutexBackend> {
        guard.exchange(|inner| {
            let woken = self.of(key).wait(inner);
            woken.unwrap_or_else(|poisoned| poisoned.into_inner())
        })
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
            .expect("a model with less requests")
    }
}
