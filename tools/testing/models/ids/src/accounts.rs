// SPDX-License-Identifier: GPL-2.0

//! An account, and threads that take from it, give back and leave.

use loom::{sync::Arc, thread};

use crate::{
    account::{Account, AccountStatus},
    read_once::read_once,
    sync::atomic::{Atomic, Release},
};

/// How many of the results say that the account has ended.
fn ends(results: &[AccountStatus]) -> usize {
    let ended = |status: &&AccountStatus| matches!(status, AccountStatus::Ended { .. });
    results.iter().filter(ended).count()
}

#[test]
fn an_account_ends_once() {
    loom::model(|| {
        let account = Arc::new(Account::new(1));
        account.take(1).unwrap();
        let theirs = account.clone();
        let other = thread::spawn(move || theirs.give(1).unwrap());
        let results = [account.put_handle().unwrap(), other.join().unwrap()];
        assert_eq!(ends(&results), 1);
        assert!(account.take(1).is_err() && account.get_handle().is_err());
    });
}

/// Does the same as `Space::find_mm_set`, against the last handle that goes.
#[test]
fn a_handle_keeps_the_account_open() {
    loom::model(|| {
        let account = Arc::new(Account::new(1));
        let theirs = account.clone();
        let other = thread::spawn(move || {
            let got = theirs.get_handle().is_ok();
            // With a handle, there is an account to take from.
            assert_eq!(got, got && theirs.take(1).is_ok());
            got
        });
        let status = account.put_handle().unwrap();
        let got = other.join().unwrap();
        assert_eq!(ends(&[status]), usize::from(!got));
    });
}

/// Does the same as `Space::alloc_in` and `Space::install_capacity`.
#[test]
fn no_id_above_the_capacity_is_allocated() {
    const BEFORE: u32 = 3;
    const AFTER: u32 = 1;
    loom::model(|| {
        let account = Arc::new(Account::new(BEFORE));
        let capacity = Arc::new(Atomic::new(BEFORE));
        let (their_account, their_capacity) = (account.clone(), capacity.clone());
        let other = thread::spawn(move || {
            their_account.take(1).ok()?;
            // The highest id that there is.
            Some(read_once(&their_capacity) - 1)
        });
        let installed = account.take_all().is_ok();
        if installed {
            capacity.store(AFTER, Release);
            let _open = account.give(AFTER).unwrap();
        }
        let id = other.join().unwrap();
        assert!(!installed || id.is_none_or(|id| id < AFTER));
        assert!(account.taken() <= BEFORE);
    });
}
