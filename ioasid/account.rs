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

use kernel_ext::read_once::{
    read_once,
    write_once, //
};

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
    quota: Atomic<u32>,
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
    pub(crate) const fn new(quota: u32) -> Self {
        Self {
            word: Atomic::new(HANDLE),
            quota: Atomic::new(quota),
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
        let quota = read_once(&self.quota);
        self.update(|word| match word {
            _ if word & CLOSED != 0 || word & HANDLES == 0 => Err(EINVAL),
            _ if count > quota.saturating_sub(word as u32) => Err(edquot()),
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

    /// Gives back what was taken.
    #[inline]
    pub(crate) fn give(&self, count: u32) -> Left {
        let count = u64::from(count);
        self.judge(Ok(self.word.fetch_sub(count, Full) - count))
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
        Ok(self.judge(Ok(now)))
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
        Ok(self.quota())
    }

    /// Changes the quota of an account of which nothing was ever taken.
    ///
    /// # Errors
    ///
    /// `EBUSY` if something is taken.
    pub(crate) fn set_quota(&self, quota: u32) -> Result {
        if self.taken() != 0 {
            return Err(EBUSY);
        }
        write_once(&self.quota, quota);
        Ok(())
    }

    fn judge(&self, word: Result<u64>) -> Left {
        match word {
            Ok(0) => Left::Ended {
                quota: self.quota(),
            },
            Ok(CLOSED) => Left::Ended { quota: 0 },
            _ => Left::Open,
        }
    }

    /// How many can be taken at most, altogether.
    pub(crate) fn quota(&self) -> u32 {
        read_once(&self.quota)
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> u32 {
        read_once(&self.word) as u32
    }

    /// How many are left.
    pub(crate) fn left(&self) -> u32 {
        self.quota().saturating_sub(self.taken())
    }

    /// Whether nothing can be taken any more.
    pub(crate) fn is_closed(&self) -> bool {
        let word = read_once(&self.word);
        word & CLOSED != 0 || word & HANDLES == 0
    }
}

#[kunit_tests(ioasid_account)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_quota() {
        let account = Account::new(3);
        assert_eq!(account.take(2), Ok(()));
        assert_eq!(account.take(2), Err(edquot()));
        assert_eq!(account.take(1), Ok(()));
        assert_eq!((account.taken(), account.left()), (3, 0));
        assert_eq!(account.give(3), Left::Open);
        assert_eq!(account.take(u32::MAX), Err(edquot()));
    }

    #[test]
    fn the_rest() {
        let account = Account::new(10);
        assert_eq!(account.take(4), Ok(()));
        assert_eq!(account.take_rest(), Ok(6));
        assert_eq!(account.take_rest(), Err(edquot()));
    }

    #[test]
    fn ends_with_the_last_handle() {
        let account = Account::new(5);
        assert_eq!(account.get_handle(), Ok(()));
        assert_eq!(account.put_handle(), Ok(Left::Open));
        assert_eq!(account.put_handle(), Ok(Left::Ended { quota: 5 }));
        assert_eq!(account.put_handle(), Err(EINVAL));
        assert_eq!(account.get_handle(), Err(EINVAL));
        assert_eq!(account.take(1), Err(EINVAL));
    }

    #[test]
    fn ends_with_the_last_that_is_taken() {
        let account = Account::new(5);
        assert_eq!(account.take(2), Ok(()));
        assert_eq!(account.put_handle(), Ok(Left::Open));
        assert_eq!(account.take(1), Err(EINVAL));
        assert_eq!(account.give(1), Left::Open);
        assert_eq!(account.give(1), Left::Ended { quota: 5 });
    }

    #[test]
    fn closed_when_nothing_is_taken() {
        let account = Account::new(5);
        assert_eq!(account.take(1), Ok(()));
        assert_eq!(account.close(), Err(EBUSY));
        assert_eq!(account.give(1), Left::Open);
        assert_eq!(account.close(), Ok(5));
        assert_eq!(account.close(), Err(EINVAL));
        assert_eq!(account.take(1), Err(EINVAL));
        assert_eq!(account.get_handle(), Err(EINVAL));
        assert_eq!(account.put_handle(), Ok(Left::Ended { quota: 0 }));
    }

    #[test]
    fn quota_is_set_while_nothing_is_taken() {
        let account = Account::new(5);
        assert_eq!(account.take(1), Ok(()));
        assert_eq!(account.set_quota(7), Err(EBUSY));
        assert_eq!(account.give(1), Left::Open);
        assert_eq!(account.set_quota(7), Ok(()));
        assert_eq!(account.take_rest(), Ok(7));
    }
}
