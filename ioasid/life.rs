// SPDX-License-Identifier: GPL-2.0

//! The lives of one id after the other, in one word.
//!
//! An id is born idle, with one reference: that of who allocated it. It is *active* while it is bound
//! to something. It is freed once, by its owner or by whoever drops the last reference; from then on
//! it is *pending*: nobody gets a new reference, and when the last one goes the id can be reused.

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full,
            Release, //
        },
        barrier::{
            smp_mb,
            Read, //
        },
    },
};

use kernel_ext::read_once::read_once;

use crate::state::State;

/// Set while the allocation belongs to a value: nothing but that frees the id.
const OWNED: u32 = 1 << 29;
/// Set while the id is bound.
const BOUND: u32 = 1 << 30;
/// Set when the id was freed.
const FREED: u32 = 1 << 31;
/// The other bits count references.
const REFERENCES: u32 = OWNED - 1;

/// One more life of the same number; the bits from here on count them. A reader that was held up for
/// 2^32 lives would take one for the other, but RCU complains of it long before.
const LIFE: u64 = 1 << 32;

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

/// The references and the state of an id, whoever has it.
///
/// # Invariants
///
/// Without a reference the lower half is 0, the upper half counts the next life already, and nothing
/// but that one's begin changes the word.
pub(crate) struct Life(Atomic<u64>);

impl Life {
    /// An id that nobody has.
    pub(crate) const fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// Begins the life of an id that nobody has: idle, with one reference.
    ///
    /// Who sees that sees whatever was written before.
    #[inline]
    pub(crate) fn begin(&self) {
        self.0.store(read_once(&self.0) | 1, Release);
    }

    /// The life that the id is in, if somebody has it.
    #[inline]
    pub(crate) fn look(&self) -> Option<Living<'_>> {
        let seen = self.0.load(Acquire);
        (seen as u32 != 0).then_some(Living {
            word: &self.0,
            seen,
        })
    }
}

/// One life of an id, as it was when somebody looked.
///
/// When it is over nothing of this has an effect and all fails with `ENOENT`, even if the number is in
/// use again: there was a moment when it was not.
#[derive(Clone, Copy)]
pub(crate) struct Living<'l> {
    word: &'l Atomic<u64>,
    /// It has a reference.
    seen: u64,
}

impl Living<'_> {
    /// Whether what was read of the id since one looked belongs to this life.
    #[inline]
    pub(crate) fn goes_on(self) -> bool {
        smp_mb(Read);
        self.is_same(read_once(self.word))
    }

    fn is_same(self, word: u64) -> bool {
        (word ^ self.seen) < LIFE
    }

    /// Changes the lower half to what `change` makes of it; returns what `change` returned beside.
    #[inline]
    fn update<R>(self, change: impl Fn(u32) -> Result<(u32, R)>) -> Result<R> {
        let mut old = self.seen;
        loop {
            let (half, result) = change(old as u32)?;
            let new = match half & REFERENCES {
                0 => (old & !(LIFE - 1)).wrapping_add(LIFE),
                _ => old & !(LIFE - 1) | u64::from(half),
            };
            match self.word.cmpxchg(old, new, Full) {
                Ok(_) => return Ok(result),
                Err(now) if self.is_same(now) => old = now,
                Err(_) => return Err(ENOENT),
            }
        }
    }

    /// Takes a reference.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the id is gone, `EBUSY` if it is freed, `EOVERFLOW` if there are 2^29 - 1 already.
    #[inline]
    pub(crate) fn get(self) -> Result {
        self.update(|word| match word & REFERENCES {
            _ if word & FREED != 0 => Err(EBUSY),
            REFERENCES => Err(EOVERFLOW),
            _ => Ok((word + 1, ())),
        })
    }

    /// Says that a value owns the allocation from now on.
    pub(crate) fn own(self) {
        // It can't fail: the allocation has a reference.
        let _ = self.update(|word| Ok((word | OWNED, ())));
    }

    /// Says that the allocation is not a value's any more.
    pub(crate) fn disown(self) {
        let _ = self.update(|word| Ok((word & !OWNED, ())));
    }

    /// Frees the id, if nobody did: then true, and the allocation's reference is to be dropped.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the id is gone; `EPERM` if a value owns the allocation.
    pub(crate) fn free(self) -> Result<bool> {
        self.update(|word| match word {
            _ if word & (FREED | OWNED) == OWNED => Err(EPERM),
            _ => Ok((word | FREED, word & FREED == 0)),
        })
    }

    /// [`free`](Self::free) and [`put`](Self::put) in one step, for when nobody is to be told in between.
    ///
    /// # Errors
    ///
    /// Those of [`free`](Self::free).
    pub(crate) fn free_and_put(self) -> Result<Freed> {
        self.update(|word| match word & REFERENCES {
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
    pub(crate) fn put(self) -> Result<Put> {
        self.update(|word| match word & REFERENCES {
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
    pub(crate) fn bind(self) -> Result {
        self.update(|word| match word {
            _ if word & (BOUND | FREED) != 0 => Err(EBUSY),
            _ => Ok((word | BOUND, ())),
        })
    }

    /// The id is not in use any more. This goes for a freed one, too: its users are to let go of it.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it was not in use; `ENOENT` if it is gone.
    pub(crate) fn unbind(self) -> Result {
        self.update(|word| match word {
            _ if word & BOUND == 0 => Err(EINVAL),
            _ => Ok((word & !BOUND, ())),
        })
    }

    /// The state when it was looked at.
    pub(crate) fn state(self) -> State {
        match self.seen as u32 {
            word if word & FREED != 0 => State::FreePending,
            word if word & BOUND != 0 => State::Active,
            _ => State::Idle,
        }
    }

    /// How many references there were when it was looked at.
    pub(crate) fn references(self) -> u32 {
        self.seen as u32 & REFERENCES
    }
}

#[kunit_tests(ioasid_life)]
mod tests {
    use super::*;

    /// An id in its first life.
    fn born() -> Life {
        let life = Life::new();
        life.begin();
        life
    }

    impl Life {
        fn now(&self) -> Result<Living<'_>> {
            self.look().ok_or(ENOENT)
        }
    }

    #[test]
    fn one_reference_at_first() -> Result {
        let life = born();
        assert_eq!(
            (life.now()?.references(), life.now()?.state()),
            (1, State::Idle)
        );
        Ok(())
    }

    #[test]
    fn freed_once() -> Result {
        let life = born();
        assert_eq!(life.now()?.free(), Ok(true));
        assert_eq!(life.now()?.free(), Ok(false));
        assert_eq!(life.now()?.state(), State::FreePending);
        Ok(())
    }

    #[test]
    fn last_reference_ends_it() -> Result {
        let life = born();
        let first = life.now()?;
        assert_eq!(first.get(), Ok(()));
        assert_eq!(life.now()?.free(), Ok(true));
        assert_eq!(life.now()?.put(), Ok(Put::Held));
        assert!(first.goes_on());
        assert_eq!(life.now()?.put(), Ok(Put::Last));
        assert!(life.look().is_none());
        // Who has seen the first life has no part in the second one.
        for _ in 0..2 {
            assert!(!first.goes_on());
            assert_eq!((first.get(), first.bind()), (Err(ENOENT), Err(ENOENT)));
            assert_eq!((first.free(), first.put()), (Err(ENOENT), Err(ENOENT)));
            assert_eq!(first.free_and_put(), Err(ENOENT));
            if life.look().is_none() {
                life.begin();
            }
            assert_eq!(
                (life.now()?.references(), life.now()?.state()),
                (1, State::Idle)
            );
        }
        Ok(())
    }

    #[test]
    fn lives_are_counted_round() -> Result {
        let life = Life(Atomic::new(!(LIFE - 1)));
        life.begin();
        let last = life.now()?;
        assert_eq!(last.free_and_put(), Ok(Freed::Last));
        life.begin();
        assert!(!last.goes_on());
        assert_eq!(life.now()?.references(), 1);
        Ok(())
    }

    #[test]
    fn freed_in_one_step() -> Result {
        let life = born();
        assert_eq!(life.now()?.get(), Ok(()));
        assert_eq!(life.now()?.free_and_put(), Ok(Freed::Held));
        assert_eq!(life.now()?.free_and_put(), Ok(Freed::Before));
        assert_eq!(
            (life.now()?.references(), life.now()?.state()),
            (1, State::FreePending)
        );
        assert_eq!(life.now()?.put(), Ok(Put::Last));
        let life = born();
        life.now()?.own();
        assert_eq!(life.now()?.free_and_put(), Err(EPERM));
        life.now()?.disown();
        assert_eq!(life.now()?.free_and_put(), Ok(Freed::Last));
        Ok(())
    }

    #[test]
    fn nobody_gets_a_freed_one() -> Result {
        let life = born();
        assert_eq!(life.now()?.free(), Ok(true));
        assert_eq!(life.now()?.get(), Err(EBUSY));
        assert_eq!(life.now()?.bind(), Err(EBUSY));
        Ok(())
    }

    #[test]
    fn last_reference_of_one_that_nobody_freed() -> Result {
        let life = born();
        assert_eq!(life.now()?.put(), Ok(Put::NotFreed));
        assert_eq!(life.now()?.references(), 1);
        assert_eq!(life.now()?.free(), Ok(true));
        assert_eq!(life.now()?.put(), Ok(Put::Last));
        Ok(())
    }

    #[test]
    fn bound_and_unbound() -> Result {
        let life = born();
        assert_eq!(life.now()?.unbind(), Err(EINVAL));
        assert_eq!(life.now()?.bind(), Ok(()));
        assert_eq!(
            (life.now()?.bind(), life.now()?.state()),
            (Err(EBUSY), State::Active)
        );
        assert_eq!(life.now()?.free(), Ok(true));
        assert_eq!(life.now()?.state(), State::FreePending);
        assert_eq!(life.now()?.unbind(), Ok(()));
        assert_eq!(life.now()?.unbind(), Err(EINVAL));
        Ok(())
    }

    #[test]
    fn what_a_value_owns() -> Result {
        let life = born();
        life.now()?.own();
        assert_eq!(life.now()?.free(), Err(EPERM));
        assert_eq!(life.now()?.put(), Err(EPERM));
        assert_eq!(life.now()?.get(), Ok(()));
        assert_eq!(life.now()?.put(), Ok(Put::Held));
        life.now()?.disown();
        assert_eq!(life.now()?.free(), Ok(true));
        assert_eq!(life.now()?.put(), Ok(Put::Last));
        Ok(())
    }

    #[test]
    fn too_many_references() -> Result {
        let life = Life(Atomic::new(REFERENCES.into()));
        assert_eq!(life.now()?.get(), Err(EOVERFLOW));
        assert_eq!(life.now()?.put(), Ok(Put::Held));
        assert_eq!(life.now()?.get(), Ok(()));
        Ok(())
    }
}
