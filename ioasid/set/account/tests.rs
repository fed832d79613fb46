// SPDX-License-Identifier: GPL-2.0

//! The rules for accounts.

use kernel::prelude::*;

#[kunit_tests(ioasid_account)]
mod cases {
    use super::super::*;

    #[test]
    fn taking_more_ids_than_the_quota_fails() {
        let account = Account::new(3);
        assert_eq!(account.take(2), Ok(()));
        assert_eq!(account.take(2), Err(edquot()));
        assert_eq!(account.take(1), Ok(()));
        assert_eq!((account.taken(), account.left()), (3, 0));
        assert_eq!(account.give(3), Ok(AccountStatus::Open));
        assert_eq!(account.take(u32::MAX), Err(edquot()));
    }

    #[test]
    fn take_rest_takes_all_ids_that_are_left() {
        let account = Account::new(10);
        assert_eq!(account.take(4), Ok(()));
        assert_eq!(account.take_rest(), Ok(6));
        assert_eq!(account.take_rest(), Err(edquot()));
    }

    #[test]
    fn an_account_without_ids_ends_with_its_last_handle() {
        let account = Account::new(5);
        assert_eq!(account.get_handle(), Ok(()));
        assert_eq!(account.put_handle(), Ok(AccountStatus::Open));
        assert_eq!(account.put_handle(), Ok(AccountStatus::Ended { quota: 5 }));
        assert_eq!(account.put_handle(), Err(EINVAL));
        assert_eq!(account.get_handle(), Err(EINVAL));
        assert_eq!(account.take(1), Err(EINVAL));
    }

    #[test]
    fn an_account_without_handles_ends_with_its_last_id() {
        let account = Account::new(5);
        assert_eq!(account.take(2), Ok(()));
        assert_eq!(account.put_handle(), Ok(AccountStatus::Open));
        assert_eq!(account.take(1), Err(EINVAL));
        assert_eq!(account.give(1), Ok(AccountStatus::Open));
        assert_eq!(account.give(1), Ok(AccountStatus::Ended { quota: 5 }));
    }

    #[test]
    fn an_account_is_closed_only_while_no_ids_are_taken() {
        let account = Account::new(5);
        assert_eq!(account.take(1), Ok(()));
        assert_eq!(account.close(), Err(EBUSY));
        assert_eq!(account.give(1), Ok(AccountStatus::Open));
        assert_eq!(account.close(), Ok(5));
        assert_eq!(account.close(), Err(EINVAL));
        assert_eq!(account.take(1), Err(EINVAL));
        assert_eq!(account.get_handle(), Err(EINVAL));
        assert_eq!(account.put_handle(), Ok(AccountStatus::Ended { quota: 0 }));
    }

    #[test]
    fn take_all_fails_if_any_id_is_taken() {
        let account = Account::new(5);
        assert_eq!(account.take(1), Ok(()));
        assert_eq!(account.take_all(), Err(EBUSY));
        assert_eq!(account.give(1), Ok(AccountStatus::Open));
        assert_eq!(account.take_all(), Ok(()));
        assert_eq!(account.take(1), Err(edquot()));
        assert_eq!(account.give(2), Ok(AccountStatus::Open));
        assert_eq!(account.take_rest(), Ok(2));
    }

    #[test]
    fn returning_more_ids_than_were_taken_fails() {
        let account = Account::new(5);
        assert_eq!(account.take(2), Ok(()));
        for count in [3, u32::MAX] {
            assert_eq!(account.give(count), Err(EINVAL));
        }
        // The handle still exists.
        assert_eq!((account.taken(), account.is_closed()), (2, false));
        assert_eq!(account.give(2), Ok(AccountStatus::Open));
        assert_eq!(account.give(1), Err(EINVAL));
    }
}
