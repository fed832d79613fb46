// SPDX-License-Identifier: GPL-2.0

//! A table with one number, as `IdTree` keeps it: taken and given back under a lock, looked up
//! without.

use loom::sync::Mutex;

use crate::{
    allocator::DEFAULT_ALLOCATOR,
    entry::Entry,
    key::Filter,
    prelude::*,
    set::SetId,
    state::{Freed, Generation, Put, Right},
};

/// One number and its entry.
pub(crate) struct Number {
    pub(crate) entry: Entry,
    state: Mutex<TableState>,
}

/// The data that `IdTree` protects by its lock.
#[derive(Default)]
struct TableState {
    taken: bool,
    /// The number of times that the number was taken.
    count: u32,
}

impl Number {
    pub(crate) fn new() -> Self {
        Self {
            entry: Entry::default(),
            state: Mutex::new(TableState::default()),
        }
    }

    /// Does the same as `Space::alloc_in`; `None` if the number is taken.
    pub(crate) fn alloc(&self, set: SetId, data: usize, owner: Right) -> Option<Generation> {
        let mut state = self.state.lock().unwrap();
        if state.taken {
            return None;
        }
        state.taken = true;
        state.count += 1;
        let generation = Generation::from_raw(state.count);
        self.entry
            .begin(generation, set, DEFAULT_ALLOCATOR, data, owner);
        Some(generation)
    }

    /// Does the same as `Space::free` without notifiers.
    pub(crate) fn free(&self, filter: Filter, right: Right) -> Result<Freed> {
        let freed = self.entry.lookup(filter)?.lifetime.free_and_put(right)?;
        if freed == Freed::Last {
            self.reclaim();
        }
        Ok(freed)
    }

    /// Does the same as `Space::free` with notifiers.
    pub(crate) fn free_in_steps(&self, filter: Filter, right: Right) -> Result {
        let found = self.entry.lookup(filter)?;
        if found.lifetime.free(right)? {
            let lifetime = Filter::Lifetime(found.lifetime.generation());
            loom::thread::yield_now();
            self.put(lifetime, right)?;
        }
        Ok(())
    }

    /// Does the same as `Space::put`.
    pub(crate) fn put(&self, filter: Filter, right: Right) -> Result<bool> {
        let found = self.entry.lookup(filter)?;
        match found.lifetime.put(right)? {
            Put::Held => Ok(false),
            Put::Last => {
                self.reclaim();
                Ok(true)
            }
            Put::NotFreed => {
                let lifetime = Filter::Lifetime(found.lifetime.generation());
                found.lifetime.free(right)?;
                self.put(lifetime, right)
            }
        }
    }

    /// Does the same as `Space::get`.
    pub(crate) fn get(&self, filter: Filter) -> Result<Generation> {
        let found = self.entry.lookup(filter)?;
        found.lifetime.get()?;
        Ok(found.lifetime.generation())
    }

    /// Does the same as `Space::find`.
    pub(crate) fn find(&self, filter: Filter) -> Result<usize> {
        self.entry.lookup(filter)?.data()
    }

    /// Does the same as `Space::set_data`.
    pub(crate) fn set_data(&self, filter: Filter, data: usize) -> Result {
        use crate::sync::atomic::Release;

        let found = self.entry.lookup(filter)?;
        found.lifetime.hold()?;
        found.data.store(data, Release);
        let lifetime = Filter::Lifetime(found.lifetime.generation());
        self.put(lifetime, Right::Anyone).map(drop)
    }

    fn reclaim(&self) {
        let mut state = self.state.lock().unwrap();
        assert!(state.taken, "given back twice");
        state.taken = false;
    }
}
