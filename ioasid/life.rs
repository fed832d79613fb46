// SPDX-License-Identifier: GPL-2.0

//! The lives of one id after the other, in one word.
//!
//! An id is born idle, with one reference: that of its allocation. It is *active* while it is bound
//! to something. It is freed once; from then on it is *pending*: nobody gets a new reference, and
//! when the last one goes the number can be reused.
//!
//! The reference of an allocation may belong to a handle. Then the word says so from its first moment
//! to its last one, and only that handle frees the id or drops that reference: others can't get in
//! between, neither when the life begins nor when it ends.
//!
//! `tools/testing/models/ids` compiles this file and checks it against all interleavings.

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
            Read,
            Write, //
        },
    },
};

use kernel_ext::read_once::read_once;

use crate::state::State;

#[cfg(CONFIG_KUNIT)]
mod tests;

/// Set while the reference of the allocation belongs to a handle.
const OWNED: u32 = 1 << 29;
/// Set while the id is bound.
const BOUND: u32 = 1 << 30;
/// Set when the id was freed.
const FREED: u32 = 1 << 31;
/// The other bits count references.
const REFERENCES: u32 = OWNED - 1;

/// The bits from here on tell the lives of a number apart.
const LIFE: u64 = 1 << 32;

/// Which of its lives a number is in. The numbers of a space have one count of lives, which comes round
/// after 2^32: a place in memory that began to count anew would let old handles into new lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generation(u32);

impl Generation {
    fn of(word: u64) -> Self {
        Self((word >> 32) as u32)
    }

    /// The generation as a number.
    pub(crate) fn to_raw(self) -> u32 {
        self.0
    }

    /// The generation with this number.
    pub(crate) fn from_raw(raw: u32) -> Self {
        Self(raw)
    }
}

/// Who may free an id and drop the reference of its allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// Whoever knows its number.
    Anyone,
    /// The handle that owns the allocation.
    Owner,
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

/// The references and the state of an id.
///
/// # Invariants
///
/// Without a reference the lower half is 0, the upper half is not that of the last life, and only
/// [`begin`](Self::begin) changes the word. [`OWNED`] is set as long as a handle has one of the
/// references, and only that handle clears it.
pub(crate) struct Life(Atomic<u64>);

impl Life {
    /// A number that is not in use.
    pub(crate) fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// Begins a life of a number that is not in use: idle, with one reference, of `owner`.
    ///
    /// `fill` writes what else there is of the id. A reader that sees the life sees that, and a reader of
    /// the life before which sees any of it finds that its own one is over. There is one caller at a time.
    ///
    /// The generation is another one than those which the number had before, here or in another place.
    #[inline]
    pub(crate) fn begin(&self, generation: Generation, owner: Right, fill: impl FnOnce()) {
        smp_mb(Write);
        fill();
        let owned = match owner {
            Right::Owner => OWNED,
            Right::Anyone => 0,
        };
        let word = u64::from(generation.0) << 32 | u64::from(owned | 1);
        self.0.store(word, Release);
    }

    /// The life that the number is in, if it is in use.
    #[inline]
    pub(crate) fn look(&self) -> Option<Living<'_>> {
        let seen = self.0.load(Acquire);
        (seen as u32 != 0).then_some(Living {
            word: &self.0,
            seen,
        })
    }
}

/// One life of an id, as it was at a look.
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
    /// Which life it is.
    #[inline]
    pub(crate) fn generation(self) -> Generation {
        Generation::of(self.seen)
    }

    /// Whether what was read of the id since the look belongs to this life.
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

    /// Takes a reference, even if the id is freed: for an operation that must not meet its end.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the id is gone, `EOVERFLOW` if there are 2^29 - 1 references already.
    pub(crate) fn hold(self) -> Result {
        self.update(|word| match word & REFERENCES {
            REFERENCES => Err(EOVERFLOW),
            _ => Ok((word + 1, ())),
        })
    }

    /// Gives the reference of the allocation to whoever knows the id's number.
    ///
    /// # Errors
    ///
    /// `EPERM` if it belongs to no handle; `ENOENT` if the id is gone.
    pub(crate) fn disown(self) -> Result {
        self.update(|word| match word & OWNED {
            0 => Err(EPERM),
            _ => Ok((word & !OWNED, ())),
        })
    }

    /// Frees the id, if that was not done: then true, and the allocation's reference is to be dropped.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the id is gone; `EPERM` if the right is not the caller's.
    pub(crate) fn free(self, right: Right) -> Result<bool> {
        self.update(|word| match word & FREED {
            0 if right == owner(word) => Ok((word | FREED, true)),
            0 => Err(EPERM),
            _ => Ok((word, false)),
        })
    }

    /// [`free`](Self::free) and [`put`](Self::put) in one step, for when nobody is to be told in between.
    ///
    /// # Errors
    ///
    /// Those of [`free`](Self::free).
    pub(crate) fn free_and_put(self, right: Right) -> Result<Freed> {
        self.update(|word| match word & FREED {
            0 if right == owner(word) => {
                let left = ((word & !OWNED) | FREED) - 1;
                Ok(match left & REFERENCES {
                    0 => (left, Freed::Last),
                    _ => (left, Freed::Held),
                })
            }
            0 => Err(EPERM),
            _ => Ok((word, Freed::Before)),
        })
    }

    /// Drops a reference: the owner that of the allocation, others any other one.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is none; `EPERM` if the only one belongs to a handle which is not the caller's.
    pub(crate) fn put(self, right: Right) -> Result<Put> {
        self.update(|word| match (right, word & REFERENCES) {
            (Right::Anyone, 1) if word & OWNED != 0 => Err(EPERM),
            (Right::Owner, _) if word & OWNED == 0 => Err(EPERM),
            (_, 1) if word & FREED == 0 => Ok((word, Put::NotFreed)),
            (_, 1) => Ok((0, Put::Last)),
            (Right::Anyone, _) => Ok((word - 1, Put::Held)),
            (Right::Owner, _) => Ok(((word & !OWNED) - 1, Put::Held)),
        })
    }

    /// The id is in use from now on.
    ///
    /// # Errors
    ///
    /// `EBUSY` if it is already, or is freed; `ENOENT` if it is gone.
    pub(crate) fn bind(self) -> Result {
        self.update(|word| match word & (BOUND | FREED) {
            0 => Ok((word | BOUND, ())),
            _ => Err(EBUSY),
        })
    }

    /// The id is not in use any more. This goes for a freed one, too: its users are to let go of it.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it was not in use; `ENOENT` if it is gone.
    pub(crate) fn unbind(self) -> Result {
        self.update(|word| match word & BOUND {
            0 => Err(EINVAL),
            _ => Ok((word & !BOUND, ())),
        })
    }

    /// The state at the look.
    pub(crate) fn state(self) -> State {
        match self.seen as u32 {
            word if word & FREED != 0 => State::FreePending,
            word if word & BOUND != 0 => State::Active,
            _ => State::Idle,
        }
    }

    /// How many references there were at the look.
    pub(crate) fn references(self) -> u32 {
        self.seen as u32 & REFERENCES
    }
}

/// Who has the right to free the id and to drop the reference of its allocation.
fn owner(word: u32) -> Right {
    match word & OWNED {
        0 => Right::Anyone,
        _ => Right::Owner,
    }
}
