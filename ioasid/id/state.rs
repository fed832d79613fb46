// SPDX-License-Identifier: GPL-2.0

//! The successive lifetimes of one id, in one word.
//!
//! The lifetime of an id starts in the idle state with one reference, that of its allocation. It is
//! *active* while it is bound. It is freed only once. From then on it is *pending*: no new
//! references can be taken, and when the last one is dropped the number can be reused.
//!
//! The reference of an allocation may belong to a handle. Then a bit of the word is set from the
//! start of the lifetime until the handle drops the reference or gives it up. While the bit is set,
//! only the handle can free the id or drop that reference. No other caller can interfere, neither
//! at the start of the lifetime nor at its end.
//!
//! `tools/testing/models/ids` compiles this file and checks it with all interleavings.

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
        }, //
    }, //
};

use crate::read_once::read_once;

#[cfg(CONFIG_KUNIT)]
#[path = "state/tests.rs"]
mod tests;

/// Set while the reference of the allocation belongs to a handle.
const OWNED: u32 = 1 << 29;
/// Set while the id is bound.
const BOUND: u32 = 1 << 30;
/// Set when the id has been freed.
const FREED: u32 = 1 << 31;
/// The mask of the reference count.
const REFERENCES: u32 = OWNED - 1;

/// The bits starting at this one are the generation, which distinguishes the lifetimes of a number.
const GENERATION: u64 = 1 << 32;

/// The generation of a lifetime. All numbers of a space share one counter of lifetimes, which wraps
/// around after 2^32. If an entry started to count anew after it was freed and allocated again, old
/// handles would match new lifetimes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generation(u32);

impl Generation {
    fn of(word: u64) -> Self {
        Self((word >> 32) as u32)
    }

    /// Returns the generation as an integer.
    pub(crate) fn to_raw(self) -> u32 {
        self.0
    }

    /// Creates a generation from an integer.
    pub(crate) fn from_raw(raw: u32) -> Self {
        Self(raw)
    }
}

/// The state of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdState {
    /// Allocated, but not in use.
    Idle,
    /// Bound to an address space or a context.
    Active,
    /// Freed, but references still exist.
    FreePending,
}

impl IdState {
    /// Returns the state's name as debugfs shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Active => "active",
            Self::FreePending => "free-pending",
        }
    }
}

/// The right to free an id and to drop the reference of its allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// Any caller that knows the number.
    Anyone,
    /// The handle that owns the allocation.
    Owner,
}

/// The result of dropping a reference.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// Other references exist.
    Held,
    /// It was the last reference: the caller must release the id.
    Last,
    /// It is the last reference to an id that has not been freed, and was not dropped: the caller
    /// must free the id first.
    NotFreed,
}

/// The result of freeing an id and dropping the reference of its allocation in one step.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Freed {
    /// The id had already been freed. Nothing changed.
    Before,
    /// Other references exist.
    Held,
    /// It was the last reference: the caller must release the id.
    Last,
}

/// The reference count and the state of an id.
///
/// # Invariants
///
/// Without a reference the lower half is 0, the upper half differs from that of the last lifetime,
/// and only [`begin`](Self::begin) changes the word. [`OWNED`] is set as long as one of the
/// references belongs to a handle, and only that handle clears it.
pub(crate) struct StateWord(Atomic<u64>);

impl StateWord {
    /// Creates the word of a number that is not in use.
    pub(crate) fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// Starts a lifetime of a number that is not in use: idle, with one reference, which belongs to
    /// `owner`.
    ///
    /// `fill` writes the other data of the id. A reader that sees the lifetime also sees these
    /// data. A reader of the previous lifetime that sees any of them finds that this lifetime has
    /// ended. Callers are serialised.
    ///
    /// The caller provides a generation that the number has not had before, in this entry or in
    /// another one.
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

    /// Returns the current lifetime of the number, if it is in use.
    #[inline]
    pub(crate) fn lookup(&self) -> Option<Lifetime<'_>> {
        let seen = self.0.load(Acquire);
        (seen as u32 != 0).then_some(Lifetime {
            word: &self.0,
            seen,
        })
    }
}

/// One lifetime of an id, as it was when [`StateWord::lookup`] read it.
///
/// After the end of the lifetime, operations have no effect. They fail with `ENOENT`, or with the
/// error that the state at the lookup requires. This is correct even if the number is in use again,
/// because there was a moment when it was not.
#[derive(Clone, Copy)]
pub(crate) struct Lifetime<'l> {
    word: &'l Atomic<u64>,
    /// The word at the lookup. Its reference count is not 0.
    seen: u64,
}

impl Lifetime<'_> {
    /// Returns the generation of the lifetime.
    #[inline]
    pub(crate) fn generation(self) -> Generation {
        Generation::of(self.seen)
    }

    /// Whether data of the id that were read since the lookup belong to this lifetime.
    #[inline]
    pub(crate) fn is_current(self) -> bool {
        smp_mb(Read);
        self.is_same(read_once(self.word))
    }

    fn is_same(self, word: u64) -> bool {
        (word ^ self.seen) < GENERATION
    }

    /// Replaces the lower half by the first result of `change`, and returns the second one.
    #[inline]
    fn update<R>(self, change: impl Fn(u32) -> Result<(u32, R)>) -> Result<R> {
        let mut old = self.seen;
        loop {
            let (half, result) = change(old as u32)?;
            let new = match half & REFERENCES {
                0 => (old & !(GENERATION - 1)).wrapping_add(GENERATION),
                _ => old & !(GENERATION - 1) | u64::from(half),
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
    /// `ENOENT` if the id is gone; `EBUSY` if it has been freed; `EOVERFLOW` if there are already
    /// 2^29 - 1 references.
    #[inline]
    pub(crate) fn get(self) -> Result {
        self.update(|word| match word & REFERENCES {
            _ if word & FREED != 0 => Err(EBUSY),
            REFERENCES => Err(EOVERFLOW),
            _ => Ok((word + 1, ())),
        })
    }

    /// Takes a reference, even if the id has been freed, for an operation during which the id must
    /// exist.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the id is gone; `EOVERFLOW` if there are already 2^29 - 1 references.
    pub(crate) fn hold(self) -> Result {
        self.update(|word| match word & REFERENCES {
            REFERENCES => Err(EOVERFLOW),
            _ => Ok((word + 1, ())),
        })
    }

    /// Passes the reference of the allocation from its handle to any caller that knows the id's
    /// number.
    ///
    /// # Errors
    ///
    /// `EPERM` if it does not belong to a handle; `ENOENT` if the id is gone.
    pub(crate) fn disown(self) -> Result {
        self.update(|word| match word & OWNED {
            0 => Err(EPERM),
            _ => Ok((word & !OWNED, ())),
        })
    }

    /// Frees the id. Returns true if it had not been freed before. Then the caller must drop the
    /// allocation's reference.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the id is gone; `EPERM` if the caller does not have the right.
    pub(crate) fn free(self, right: Right) -> Result<bool> {
        self.update(|word| match word & FREED {
            0 if right == owner(word) => Ok((word | FREED, true)),
            0 => Err(EPERM),
            _ => Ok((word, false)),
        })
    }

    /// [`free`](Self::free) and [`put`](Self::put) in one step, if no notifier has to be called
    /// in between.
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

    /// Drops a reference: [`Right::Owner`] drops that of the allocation, [`Right::Anyone`] any
    /// other reference.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the id is gone; `EPERM` if the only reference belongs to a handle and the caller
    /// is not its owner, or if the caller is an owner and no handle has a reference.
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

    /// Marks the id as in use.
    ///
    /// # Errors
    ///
    /// `EBUSY` if it is already in use or has been freed; `ENOENT` if it is gone.
    pub(crate) fn bind(self) -> Result {
        self.update(|word| match word & (BOUND | FREED) {
            0 => Ok((word | BOUND, ())),
            _ => Err(EBUSY),
        })
    }

    /// Marks the id as no longer in use. This also works for a freed id, because its users must
    /// release it.
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

    /// Returns the state at the lookup.
    pub(crate) fn state(self) -> IdState {
        match self.seen as u32 {
            word if word & FREED != 0 => IdState::FreePending,
            word if word & BOUND != 0 => IdState::Active,
            _ => IdState::Idle,
        }
    }

    /// Returns the number of references at the lookup.
    pub(crate) fn references(self) -> u32 {
        self.seen as u32 & REFERENCES
    }
}

/// Returns the right that a caller needs to free the id and to drop the reference of its
/// allocation.
fn owner(word: u32) -> Right {
    match word & OWNED {
        0 => Right::Anyone,
        _ => Right::Owner,
    }
}
