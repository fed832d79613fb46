// SPDX-License-Identifier: GPL-2.0

//! Accounts: a quota of ids, the number of ids taken, and the handles of the account.
//!
//! Accounts form a tree of two levels. A set's quota is taken from the account of the whole space,
//! so that no id is reserved for two sets. Ids are then taken from the set's account.

use kernel::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Full, //
    }, //
};

use crate::read_once::read_once;

#[cfg(CONFIG_KUNIT)]
#[path = "account/tests.rs"]
mod tests;

/// Set when nothing more can be taken, and the quota was returned.
const CLOSED: u64 = 1 << 63;
/// One handle. The bits below count the ids taken.
const HANDLE: u64 = 1 << 32;
/// The mask of the handle count.
const HANDLES: u64 = CLOSED - HANDLE;

/// The error for an exceeded quota, which the `kernel` crate does not define.
pub(crate) fn edquot() -> Error {
    Error::from_errno(-(kernel_ext::bindings::EDQUOT as i32))
}

/// An account of ids.
///
/// # Invariants
///
/// At most `quota` ids are taken. Without a handle no more ids are taken. With no ids taken and no
/// handle the account has ended and never changes again.
pub(crate) struct Account {
    word: Atomic<u64>,
    quota: u32,
}

/// Whether the account still exists.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum AccountStatus {
    /// Handles exist or ids are taken.
    Open,
    /// No ids are taken and none can be taken any more. This is returned only once.
    Ended {
        /// The number of ids to return to the parent's account.
        quota: u32,
    },
}

impl Account {
    /// Creates an account of `quota` ids with one handle.
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

    /// Takes `count` ids.
    ///
    /// # Errors
    ///
    /// `EDQUOT` if fewer ids are left; `EINVAL` if the account is closed.
    #[inline]
    pub(crate) fn take(&self, count: u32) -> Result {
        self.update(|word| match word {
            _ if word & CLOSED != 0 || word & HANDLES == 0 => Err(EINVAL),
            _ if count > self.quota.saturating_sub(word as u32) => Err(edquot()),
            _ => Ok(word + u64::from(count)),
        })
        .map(|_| ())
    }

    /// Takes all ids that are left, and returns their number.
    ///
    /// # Errors
    ///
    /// `EDQUOT` if no ids are left; `EINVAL` if the account is closed.
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

    /// Takes the whole quota, if no ids are taken yet.
    ///
    /// # Errors
    ///
    /// `EBUSY` if ids are taken; `EINVAL` if the account is closed.
    pub(crate) fn take_all(&self) -> Result {
        self.update(|word| match word {
            _ if word & CLOSED != 0 || word & HANDLES == 0 => Err(EINVAL),
            _ if word as u32 != 0 => Err(EBUSY),
            _ => Ok(word + u64::from(self.quota)),
        })
        .map(|_| ())
    }

    /// Returns `count` ids to the account.
    ///
    /// # Errors
    ///
    /// `EINVAL` if fewer ids are taken. Then nothing changes.
    #[inline]
    pub(crate) fn give(&self, count: u32) -> Result<AccountStatus> {
        let now = self.update(|word| match (word as u32).checked_sub(count) {
            Some(_) => Ok(word - u64::from(count)),
            None => Err(EINVAL),
        })?;
        Ok(self.status(now))
    }

    /// Takes another handle.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the account has no handle or too many, or is closed.
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
    /// `EINVAL` if the account has no handle.
    pub(crate) fn put_handle(&self) -> Result<AccountStatus> {
        let now = self.update(|word| match word & HANDLES {
            0 => Err(EINVAL),
            _ => Ok(word - HANDLE),
        })?;
        Ok(self.status(now))
    }

    /// Closes the account: no more ids can be taken. Returns the number of ids to return to the
    /// parent's account.
    ///
    /// # Errors
    ///
    /// `EBUSY` if ids are taken; `EINVAL` if the account is already closed.
    pub(crate) fn close(&self) -> Result<u32> {
        self.update(|word| match word {
            _ if word & CLOSED != 0 || word & HANDLES == 0 => Err(EINVAL),
            _ if word as u32 != 0 => Err(EBUSY),
            _ => Ok(word | CLOSED),
        })?;
        Ok(self.quota)
    }

    fn status(&self, word: u64) -> AccountStatus {
        match word {
            0 => AccountStatus::Ended { quota: self.quota },
            CLOSED => AccountStatus::Ended { quota: 0 },
            _ => AccountStatus::Open,
        }
    }

    /// Returns the maximum number of ids that can be taken.
    pub(crate) fn quota(&self) -> u32 {
        self.quota
    }

    /// Returns the number of ids taken.
    pub(crate) fn taken(&self) -> u32 {
        read_once(&self.word) as u32
    }

    /// Returns the number of ids left.
    pub(crate) fn left(&self) -> u32 {
        self.quota.saturating_sub(self.taken())
    }

    /// Whether no more ids can be taken.
    pub(crate) fn is_closed(&self) -> bool {
        let word = read_once(&self.word);
        word & CLOSED != 0 || word & HANDLES == 0
    }
}
