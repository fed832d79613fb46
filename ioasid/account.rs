// SPDX-License-Identifier: GPL-2.0

//! How many ids somebody may have, how many are taken, and who else needs the account.
//!
//! Accounts form a tree of two levels. A set's quota is taken from the account of the whole space,
//! so that no quota promises what another one has. Ids are then taken from the set's account.

use kernel::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Full, //
    },
};

use kernel_ext::read_once::read_once;

#[cfg(CONFIG_KUNIT)]
mod tests;

/// Set when nothing can be taken any more, and the quota was given back.
const CLOSED: u64 = 1 << 63;
/// One handle; the bits below count what is taken.
const HANDLE: u64 = 1 << 32;
/// All handles.
const HANDLES: u64 = CLOSED - HANDLE;

/// What a quota is exceeded with; the `kernel` crate has no name for it.
pub(crate) fn edquot() -> Error {
    Error::from_errno(-(kernel_ext::bindings::EDQUOT as i32))
}

/// An account of ids.
///
/// # Invariants
///
/// No more than `quota` are taken. Without a handle, none is taken any more; with nothing taken and
/// no handle the account has ended, and never changes again.
pub(crate) struct Account {
    word: Atomic<u64>,
    quota: u32,
}

/// Whether the account lives on.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Left {
    /// Somebody has a handle, or something is taken.
    Open,
    /// Nothing is taken, and nobody can take anything. This is said once.
    Ended {
        /// What of the parent's account is to be given back.
        quota: u32,
    },
}

impl Account {
    /// An account with one handle, where `quota` can be taken.
    pub(crate) fn new(quota: u32) -> Self {
        Self {
            word: Atomic::new(HANDLE),
            quota,
        }
    }

    #[inline]
    fn update(&self, change: impl Fn(u64) -> Result<u64>) -> Result<u64> {
        let mut old = read_once(&self.word);
        loop {
            let new = change(old)?;
            match self.word.cmpxchg(old, new, Full) {
                Ok(_) => return Ok(new),
                Err(now) => old = now,
            }
        }
    }

    /// Takes `count`.
    ///
    /// # Errors
    ///
    /// `EDQUOT` if so many are not left; `EINVAL` if the account is closed.
    #[inline]
    pub(crate) fn take(&self, count: u32) -> Result {
        self.update(|word| match word {
            _ if word & CLOSED != 0 || word & HANDLES == 0 => Err(EINVAL),
            _ if count > self.quota.saturating_sub(word as u32) => Err(edquot()),
            _ => Ok(word + u64::from(count)),
        })
        .map(|_| ())
    }

    /// Takes what is left, and returns how many that are.
    ///
    /// # Errors
    ///
    /// `EDQUOT` if nothing is left; `EINVAL` if the account is closed.
    pub(crate) fn take_rest(&self) -> Result<u32> {
        loop {
            let rest = self.left();
            if rest == 0 {
                return Err(edquot());
            }
            match self.take(rest) {
                Err(e) if e == edquot() => {}
                taken => return taken.map(|()| rest),
            }
        }
    }

    /// Takes the whole quota, if nothing is taken yet.
    ///
    /// # Errors
    ///
    /// `EBUSY` if something is taken; `EINVAL` if the account is closed.
    pub(crate) fn take_all(&self) -> Result {
        self.update(|word| match word {
            _ if word & CLOSED != 0 || word & HANDLES == 0 => Err(EINVAL),
            _ if word as u32 != 0 => Err(EBUSY),
            _ => Ok(word + u64::from(self.quota)),
        })
        .map(|_| ())
    }

    /// Gives back what was taken.
    ///
    /// # Errors
    ///
    /// `EINVAL` if that is more than was taken: then nothing changes.
    #[inline]
    pub(crate) fn give(&self, count: u32) -> Result<Left> {
        let now = self.update(|word| match (word as u32).checked_sub(count) {
            Some(_) => Ok(word - u64::from(count)),
            None => Err(EINVAL),
        })?;
        Ok(self.judge(now))
    }

    /// Takes one more handle.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the account has none, or is closed.
    pub(crate) fn get_handle(&self) -> Result {
        self.update(|word| match word & HANDLES {
            0 | HANDLES => Err(EINVAL),
            _ if word & CLOSED != 0 => Err(EINVAL),
            _ => Ok(word + HANDLE),
        })
        .map(|_| ())
    }

    /// Drops a handle.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is none.
    pub(crate) fn put_handle(&self) -> Result<Left> {
        let now = self.update(|word| match word & HANDLES {
            0 => Err(EINVAL),
            _ => Ok(word - HANDLE),
        })?;
        Ok(self.judge(now))
    }

    /// Closes the account: nothing is taken any more. Returns what to give back to the parent.
    ///
    /// # Errors
    ///
    /// `EBUSY` if something is taken; `EINVAL` if it was closed before.
    pub(crate) fn close(&self) -> Result<u32> {
        self.update(|word| match word {
            _ if word & CLOSED != 0 || word & HANDLES == 0 => Err(EINVAL),
            _ if word as u32 != 0 => Err(EBUSY),
            _ => Ok(word | CLOSED),
        })?;
        Ok(self.quota)
    }

    fn judge(&self, word: u64) -> Left {
        match word {
            0 => Left::Ended { quota: self.quota },
            CLOSED => Left::Ended { quota: 0 },
            _ => Left::Open,
        }
    }

    /// How many can be taken at most, altogether.
    pub(crate) fn quota(&self) -> u32 {
        self.quota
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> u32 {
        read_once(&self.word) as u32
    }

    /// How many are left.
    pub(crate) fn left(&self) -> u32 {
        self.quota.saturating_sub(self.taken())
    }

    /// Whether nothing can be taken any more.
    pub(crate) fn is_closed(&self) -> bool {
        let word = read_once(&self.word);
        word & CLOSED != 0 || word & HANDLES == 0
    }
}
