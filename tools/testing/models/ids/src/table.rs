// SPDX-License-Identifier: GPL-2.0

//! A table with one number, as `IdTable` keeps it: taken and given back under a lock, looked up without.

use loom::sync::Mutex;

use crate::{
    entry::Entry,
    key::Only,
    life::{Freed, Generation, Put, Right},
    prelude::*,
    set_id::SetId,
    source::OWN,
};

/// One number and its entry.
pub(crate) struct Number {
    pub(crate) entry: Entry,
    state: Mutex<State>,
}

/// What `IdTable` has under its lock.
#[derive(Default)]
struct State {
    taken: bool,
    /// How often it was taken.
    count: u32,
}

impl Number {
    pub(crate) fn new() -> Self {
        Self {
            entry: Entry::default(),
            state: Mutex::new(State::default()),
        }
    }

    /// What `Space::alloc_in` does; `None` if the number is taken.
    pub(crate) fn alloc(&self, set: SetId, data: usize, owner: Right) -> Option<Generation> {
        let mut state = self.state.lock().unwrap();
        if state.taken {
            return None;
        }
        state.taken = true;
        state.count += 1;
        let generation = Generation::from_raw(state.count);
        self.entry.begin(generation, set, OWN, data, owner);
        Some(generation)
    }

    /// What `Space::free` does without listeners.
    pub(crate) fn free(&self, only: Only, right: Right) -> Result<Freed> {
        let freed = self.entry.look(only)?.life.free_and_put(right)?;
        if freed == Freed::Last {
            self.reclaim();
        }
        Ok(freed)
    }

    /// What `Space::free` does with listeners.
    pub(crate) fn free_in_steps(&self, only: Only, right: Right) -> Result {
        let found = self.entry.look(only)?;
        if found.life.free(right)? {
            let life = Only::Life(found.life.generation());
            loom::thread::yield_now();
            self.put(life, right)?;
        }
        Ok(())
    }

    /// What `Space::put` does.
    pub(crate) fn put(&self, only: Only, right: Right) -> Result<bool> {
        let found = self.entry.look(only)?;
        match found.life.put(right)? {
            Put::Held => Ok(false),
            Put::Last => {
                self.reclaim();
                Ok(true)
            }
            Put::NotFreed => {
                let life = Only::Life(found.life.generation());
                found.life.free(right)?;
                self.put(life, right)
            }
        }
    }

    /// What `Space::get` does.
    pub(crate) fn get(&self, only: Only) -> Result<Generation> {
        let found = self.entry.look(only)?;
        found.life.get()?;
        Ok(found.life.generation())
    }

    /// What `Space::find` does.
    pub(crate) fn find(&self, only: Only) -> Result<usize> {
        self.entry.look(only)?.data()
    }

    /// What `Space::set_data` does.
    pub(crate) fn set_data(&self, only: Only, data: usize) -> Result {
        use crate::sync::atomic::Release;

        let found = self.entry.look(only)?;
        found.life.hold()?;
        found.data.store(data, Release);
        let life = Only::Life(found.life.generation());
        self.put(life, Right::Anyone).map(drop)
    }

    fn reclaim(&self) {
        let mut state = self.state.lock().unwrap();
        assert!(state.taken, "given back twice");
        state.taken = false;
    }
}
