// SPDX-License-Identifier: GPL-2.0

//! The life of one id, in one word.
//!
//! An id is born idle, with one reference: that of who allocated it. It is *active* while it is bound
//! to something. It is freed once, by its owner or by whoever drops the last reference; from then on
//! it is *pending*: nobody gets a new reference, and when the last one goes the id can be reused.

use kernel::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Full,
        Relaxed, //
    },
};

/// Set while the allocation belongs to a value: nothing but that frees the id.
const OWNED: u32 = 1 << 29;
/// Set while the id is bound.
const BOUND: u32 = 1 << 30;
/// Set when the id was freed.
const FREED: u32 = 1 << 31;
/// The other bits count references.
const REFERENCES: u32 = OWNED - 1;

/// What an id can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Allocated, and not in use.
    Idle,
    /// Bound to an address space or a context.
    Active,
    /// Freed, but somebody still has a reference.
    FreePending,
}

impl State {
    /// The state's name, as debugfs shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Active => "active",
            Self::FreePending => "free-pending",
        }
    }
}

/// What became of a reference that was to be dropped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// There are others.
    Held,
    /// It was the last: the id has to be reclaimed.
    Last,
    /// It is the last one of an id that nobody freed, and was not dropped: free the id first.
    NotFreed,
}

/// What became of an id that was freed, and lost the reference of its allocation, at once.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Freed {
    /// It had been freed before: nothing changed.
    Before,
    /// Others have references.
    Held,
    /// It was the last reference: the id has to be reclaimed.
    Last,
}

/// The references and the state of one id.
///
/// # Invariants
///
/// Without a reference the id is freed, and nothing changes any more.
pub(crate) struct Life(Atomic<u32>);

impl Life {
    /// An idle id with one reference.
    pub(crate) const fn new() -> Self {
        Self(Atomic::new(1))
    }

    /// Changes the word to what `change` makes of it; returns what `change` returned beside.
    #[inline]
    fn update<R>(&self, change: impl Fn(u32) -> Result<(u32, R)>) -> Result<R> {
        let mut old = self.0.load(Relaxed);
        loop {
            let (new, result) = change(old)?;
            match self.0.cmpxchg(old, new, Full) {
                Ok(_) => return Ok(result),
                Err(now) => old = now,
            }
        }
    }

    /// Takes a reference.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the id is gone, `EBUSY` if it is freed, `EOVERFLOW` if there are 2^29 - 1 already.
    #[inline]
    pub(crate) fn get(&self) -> Result {
        self.update(|word| match word & REFERENCES {
            0 => Err(ENOENT),
            _ if word & FREED != 0 => Err(EBUSY),
            REFERENCES => Err(EOVERFLOW),
            _ => Ok((word + 1, ())),
        })
    }

    /// Says that a value owns the allocation from now on.
    pub(crate) fn own(&self) {
        // It can't fail: the allocation has a reference.
        let _ = self.update(|word| Ok((word | OWNED, ())));
    }

    /// Says that the allocation is not a value's any more.
    pub(crate) fn disown(&self) {
        let _ = self.update(|word| Ok((word & !OWNED, ())));
    }

    /// Frees the id, if nobody did: then true, and the allocation's reference is to be dropped.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the id is gone; `EPERM` if a value owns the allocation.
    pub(crate) fn free(&self) -> Result<bool> {
        self.update(|word| match word {
            _ if word & REFERENCES == 0 => Err(ENOENT),
            _ if word & (FREED | OWNED) == OWNED => Err(EPERM),
            _ => Ok((word | FREED, word & FREED == 0)),
        })
    }

    /// [`free`](Self::free) and [`put`](Self::put) in one step, for when nobody is to be told in between.
    ///
    /// # Errors
    ///
    /// Those of [`free`](Self::free).
    pub(crate) fn free_and_put(&self) -> Result<Freed> {
        self.update(|word| match word & REFERENCES {
            0 => Err(ENOENT),
            _ if word & (FREED | OWNED) == OWNED => Err(EPERM),
            _ if word & FREED != 0 => Ok((word, Freed::Before)),
            1 => Ok(((word | FREED) - 1, Freed::Last)),
            _ => Ok(((word | FREED) - 1, Freed::Held)),
        })
    }

    /// Drops a reference.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is none; `EPERM` if the only one is that of a value.
    pub(crate) fn put(&self) -> Result<Put> {
        self.update(|word| match word & REFERENCES {
            0 => Err(ENOENT),
            1 if word & (FREED | OWNED) == OWNED => Err(EPERM),
            1 if word & FREED == 0 => Ok((word, Put::NotFreed)),
            1 => Ok((word - 1, Put::Last)),
            _ => Ok((word - 1, Put::Held)),
        })
    }

    /// The id is in use from now on.
    ///
    /// # Errors
    ///
    /// `EBUSY` if it is already, or is freed; `ENOENT` if it is gone.
    pub(crate) fn bind(&self) -> Result {
        self.update(|word| match word {
            _ if word & REFERENCES == 0 => Err(ENOENT),
            _ if word & (BOUND | FREED) != 0 => Err(EBUSY),
            _ => Ok((word | BOUND, ())),
        })
    }

    /// The id is not in use any more. This goes for a freed one, too: its users are to let go of it.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it was not in use; `ENOENT` if it is gone.
    pub(crate) fn unbind(&self) -> Result {
        self.update(|word| match word {
            _ if word & REFERENCES == 0 => Err(ENOENT),
            _ if word & BOUND == 0 => Err(EINVAL),
            _ => Ok((word & !BOUND, ())),
        })
    }

    /// The state just now.
    pub(crate) fn state(&self) -> State {
        match self.0.load(Relaxed) {
            word if word & FREED != 0 => State::FreePending,
            word if word & BOUND != 0 => State::Active,
            _ => State::Idle,
        }
    }

    /// How many references there are just now.
    pub(crate) fn references(&self) -> u32 {
        self.0.load(Relaxed) & REFERENCES
    }
}

#[kunit_tests(ioasid_life)]
mod tests {
    use super::*;

    #[test]
    fn one_reference_at_first() {
        let life = Life::new();
        assert_eq!((life.references(), life.state()), (1, State::Idle));
    }

    #[test]
    fn freed_once() {
        let life = Life::new();
        assert_eq!(life.free(), Ok(true));
        assert_eq!(life.free(), Ok(false));
        assert_eq!(life.state(), State::FreePending);
    }

    #[test]
    fn last_reference_ends_it() {
        let life = Life::new();
        assert_eq!(life.get(), Ok(()));
        assert_eq!(life.free(), Ok(true));
        assert_eq!(life.put(), Ok(Put::Held));
        assert_eq!(life.put(), Ok(Put::Last));
        for gone in [life.get(), life.bind(), life.unbind()] {
            assert_eq!(gone, Err(ENOENT));
        }
        assert_eq!(life.free(), Err(ENOENT));
        assert_eq!(life.put(), Err(ENOENT));
    }

    #[test]
    fn freed_in_one_step() {
        let life = Life::new();
        assert_eq!(life.get(), Ok(()));
        assert_eq!(life.free_and_put(), Ok(Freed::Held));
        assert_eq!(life.free_and_put(), Ok(Freed::Before));
        assert_eq!((life.references(), life.state()), (1, State::FreePending));
        assert_eq!(life.put(), Ok(Put::Last));
        assert_eq!(life.free_and_put(), Err(ENOENT));
        let life = Life::new();
        life.own();
        assert_eq!(life.free_and_put(), Err(EPERM));
        life.disown();
        assert_eq!(life.free_and_put(), Ok(Freed::Last));
    }

    #[test]
    fn nobody_gets_a_freed_one() {
        let life = Life::new();
        assert_eq!(life.free(), Ok(true));
        assert_eq!(life.get(), Err(EBUSY));
        assert_eq!(life.bind(), Err(EBUSY));
    }

    #[test]
    fn last_reference_of_one_that_nobody_freed() {
        let life = Life::new();
        assert_eq!(life.put(), Ok(Put::NotFreed));
        assert_eq!(life.references(), 1);
        assert_eq!(life.free(), Ok(true));
        assert_eq!(life.put(), Ok(Put::Last));
    }

    #[test]
    fn bound_and_unbound() {
        let life = Life::new();
        assert_eq!(life.unbind(), Err(EINVAL));
        assert_eq!(life.bind(), Ok(()));
        assert_eq!((life.bind(), life.state()), (Err(EBUSY), State::Active));
        assert_eq!(life.free(), Ok(true));
        assert_eq!(life.state(), State::FreePending);
        assert_eq!(life.unbind(), Ok(()));
        assert_eq!(life.unbind(), Err(EINVAL));
    }

    #[test]
    fn what_a_value_owns() {
        let life = Life::new();
        life.own();
        assert_eq!(life.free(), Err(EPERM));
        assert_eq!(life.put(), Err(EPERM));
        assert_eq!(life.get(), Ok(()));
        assert_eq!(life.put(), Ok(Put::Held));
        life.disown();
        assert_eq!(life.free(), Ok(true));
        assert_eq!(life.put(), Ok(Put::Last));
    }

    #[test]
    fn too_many_references() {
        let life = Life(Atomic::new(REFERENCES));
        assert_eq!(life.get(), Err(EOVERFLOW));
        assert_eq!(life.put(), Ok(Put::Held));
        assert_eq!(life.get(), Ok(()));
    }
}
