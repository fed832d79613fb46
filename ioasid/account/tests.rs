// SPDX-License-Identifier: GPL-2.0

//! The rules for accounts.

use kernel::prelude::*;

#[kunit_tests(ioasid_account)]
mod cases {
    use super::super::*;

    #[test]
    fn no_more_than_the_quota() {
        let account = Account::new(3);
        assert_eq!(account.take(2), Ok(()));
        assert_eq!(account.take(2), Err(edquot()));
        assert_eq!(account.take(1), Ok(()));
        assert_eq!((account.taken(), account.left()), (3, 0));
        assert_eq!(account.give(3), Ok(Left::Open));
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
        assert_eq!(account.give(1), Ok(Left::Open));
        assert_eq!(account.give(1), Ok(Left::Ended { quota: 5 }));
    }

    #[test]
    fn closed_when_nothing_is_taken() {
        let account = Account::new(5);
        assert_eq!(account.take(1), Ok(()));
        assert_eq!(account.close(), Err(EBUSY));
        assert_eq!(account.give(1), Ok(Left::Open));
        assert_eq!(account.close(), Ok(5));
        assert_eq!(account.close(), Err(EINVAL));
        assert_eq!(account.take(1), Err(EINVAL));
        assert_eq!(account.get_handle(), Err(EINVAL));
        assert_eq!(account.put_handle(), Ok(Left::Ended { quota: 0 }));
    }

    #[test]
    fn everything_or_nothing() {
        let account = Account::new(5);
        assert_eq!(account.take(1), Ok(()));
        assert_eq!(account.take_all(), Err(EBUSY));
        assert_eq!(account.give(1), Ok(Left::Open));
        assert_eq!(account.take_all(), Ok(()));
        assert_eq!(account.take(1), Err(edquot()));
        assert_eq!(account.give(2), Ok(Left::Open));
        assert_eq!(account.take_rest(), Ok(2));
    }

    #[test]
    fn no_more_is_given_back_than_was_taken() {
        let account = Account::new(5);
        assert_eq!(account.take(2), Ok(()));
        for count in [3, u32::MAX] {
            assert_eq!(account.give(count), Err(EINVAL));
        }
        // The handle still exists.
        assert_eq!((account.taken(), account.is_closed()), (2, false));
        assert_eq!(account.give(2), Ok(Left::Open));
        assert_eq!(account.give(1), Err(EINVAL));
    }
}
