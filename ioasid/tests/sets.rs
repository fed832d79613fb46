// SPDX-License-Identifier: GPL-2.0

//! The rules for sets and capacities: quotas, reservations and owners.

use kernel::prelude::*;

use crate::global_pasids::GlobalPasids;

use super::{
    alloc,
    any,
    space, //
};
use crate::{
    gfp::Gfp,
    id::{
        key::Key,
        range::{
            IdRange,
            INVALID, //
        }, //
    },
    set::{
        account::edquot,
        Quota,
        SetId,
        Token, //
    },
    space::{
        KmemCaches,
        Space, //
    }, //
};

#[kunit_tests(ioasid_sets)]
mod tests {
    use super::*;

    #[test]
    fn an_allocation_above_the_quota_fails() -> Result {
        let space = space(100)?;
        let set = space.new_set(Token::None, Quota::Exactly(2))?;
        let first = set.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        let _second = set.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        let third = || set.alloc(IdRange::ALL, 0, Gfp::Kernel).err();
        assert_eq!(third(), Some(edquot()));
        assert_eq!((set.quota(), set.used()), (Ok(2), Ok(2)));
        drop(first);
        assert_eq!(third(), None);
        Ok(())
    }

    #[test]
    fn a_failed_allocation_uses_no_quota() -> Result {
        let space = space(10)?;
        let set = space.new_set(Token::None, Quota::Exactly(2))?;
        let beyond = IdRange::new(10, 20)?;
        assert_eq!(set.alloc(beyond, 0, Gfp::Kernel).err(), Some(ENOSPC));
        assert_eq!((set.used(), space.own_ids()), (Ok(0), 0));
        Ok(())
    }

    #[test]
    fn quotas_are_reserved() -> Result {
        let space = space(11)?;
        let new = |quota| space.new_set(Token::None, quota);
        let seven = new(Quota::Exactly(7))?;
        assert_eq!(new(Quota::Exactly(4)).err(), Some(ENOSPC));
        assert_eq!(new(Quota::Exactly(0)).err(), Some(EINVAL));
        let rest = new(Quota::Rest)?;
        assert_eq!(rest.quota(), Ok(3));
        assert_eq!(new(Quota::Rest).err(), Some(ENOSPC));
        assert_eq!(alloc(&space, SetId::ROOT), Err(edquot()));
        drop(seven);
        assert_eq!(new(Quota::Rest)?.quota(), Ok(7));
        assert_eq!(alloc(&space, SetId::ROOT), Ok(1));
        assert_eq!(new(Quota::Rest)?.quota(), Ok(6));
        Ok(())
    }

    #[test]
    fn reserved_capacity_is_not_available_to_sets() -> Result {
        let space = space(11)?;
        assert_eq!(space.reserve_capacity(8), Ok(()));
        assert_eq!(space.reserve_capacity(3), Err(ENOSPC));
        let rest = || space.new_set(Token::None, Quota::Rest)?.quota();
        assert_eq!(rest(), Ok(2));
        assert_eq!(space.cancel_capacity(3), Ok(()));
        assert_eq!(space.cancel_capacity(5), Ok(()));
        assert_eq!(rest(), Ok(10));
        Ok(())
    }

    #[test]
    fn cancelling_more_than_is_reserved_fails() -> Result {
        let space = space(11)?;
        let set = space.new_set(Token::None, Quota::Exactly(4))?;
        space.reserve_capacity(2)?;
        for count in [3, 6, 11, u32::MAX] {
            assert_eq!(space.cancel_capacity(count), Err(EINVAL));
        }
        // The set's quota is reserved for it, and ids in no set can still be allocated.
        let rest = || space.new_set(Token::None, Quota::Rest)?.quota();
        assert_eq!(rest(), Ok(4));
        assert_eq!(alloc(&space, SetId::ROOT), Ok(1));
        assert_eq!(space.cancel_capacity(2), Ok(()));
        assert_eq!(space.cancel_capacity(1), Err(EINVAL));
        assert_eq!((rest(), set.quota()), (Ok(5), Ok(4)));
        Ok(())
    }

    #[test]
    fn the_capacity_is_lowered_once_and_only_without_ids() -> Result {
        let space = space(100)?;
        let id = alloc(&space, SetId::ROOT)?;
        assert_eq!(space.install_capacity(50), Err(EBUSY));
        space.free(any(id))?;
        // The kernel may use the ids above the capacity.
        for bad in [0, 1, 101, INVALID] {
            assert_eq!(space.install_capacity(bad), Err(EINVAL));
        }
        assert_eq!(space.install_capacity(3), Ok(()));
        assert_eq!(space.install_capacity(50), Err(EBUSY));
        assert_eq!(alloc(&space, SetId::ROOT), Ok(1));
        assert_eq!(alloc(&space, SetId::ROOT), Ok(2));
        assert_eq!(alloc(&space, SetId::ROOT), Err(edquot()));
        Ok(())
    }

    #[test]
    fn ids_of_the_kernel_are_not_available() -> Result {
        let _kernels = GlobalPasids::take(10, 12)?;
        let pasids = GlobalPasids::take(1, 20)?;
        let space = Space::new(&KmemCaches::shared()?, 1, 20, Some(pasids));
        let space = KBox::pin_init(space, GFP_KERNEL)?;
        let rest = || space.new_set(Token::None, Quota::Rest)?.quota();
        assert_eq!(rest(), Ok(17));
        assert_eq!(space.install_capacity(12), Ok(()));
        assert_eq!(rest(), Ok(9));
        Ok(())
    }

    #[test]
    fn a_set_is_freed_only_without_ids() -> Result {
        let space = space(100)?;
        let set = space.new_set(Token::None, Quota::Rest)?.into_handle();
        let id = alloc(&space, set)?;
        assert_eq!(space.free_set(set), Err(EBUSY));
        space.free(Key::new(Some(set), id))?;
        let second = space.get_set(set)?;
        assert_eq!(space.free_set(set), Ok(()));
        // The other handle keeps the set's number. But no ids can be allocated, and the quota has
        // been returned.
        assert_eq!(alloc(&space, set), Err(EINVAL));
        assert_eq!(space.get_set(set).err(), Some(EINVAL));
        assert_eq!(space.free_set(set), Err(EINVAL));
        assert_eq!(space.new_set(Token::None, Quota::Rest)?.quota(), Ok(99));
        drop(second);
        for unknown in [set, SetId::new(77, 1), SetId::ROOT] {
            assert_eq!(space.free_set(unknown), Err(EINVAL));
        }
        Ok(())
    }

    #[test]
    fn a_dropped_set_exists_until_its_last_id_is_freed() -> Result {
        let space = space(100)?;
        let set = space.new_set(Token::None, Quota::Rest)?;
        let id = set.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        let name = set.id();
        drop(set);
        assert_eq!(alloc(&space, name), Err(EINVAL));
        let rest = || space.new_set(Token::None, Quota::Rest).err();
        assert_eq!(rest(), Some(ENOSPC));
        drop(id);
        assert_eq!(rest(), None);
        assert_eq!(alloc(&space, name), Err(EINVAL));
        Ok(())
    }

    #[test]
    fn a_process_has_at_most_one_set() -> Result {
        let space = space(100)?;
        let new = |token| space.new_set(token, Quota::Exactly(1));
        assert_eq!(space.find_mm_set(0x1000).err(), Some(ENOENT));
        let set = new(Token::Mm(0x1000))?;
        assert_eq!(new(Token::Mm(0x1000)).err(), Some(EEXIST));
        let _other = new(Token::Mm(0x2000))?;
        let _same_address = new(Token::Private(0x1000))?;
        let _again = new(Token::Private(0x1000))?;
        let found = space.find_mm_set(0x1000)?;
        assert_eq!(found.id(), set.id());
        drop(set);
        assert_eq!(new(Token::Mm(0x1000)).err(), Some(EEXIST));
        drop(found);
        assert_eq!(new(Token::Mm(0x1000)).err(), None);
        Ok(())
    }

    #[test]
    fn for_each_in_visits_all_ids_of_the_set() -> Result {
        let space = space(100)?;
        let set = space.new_set(Token::None, Quota::Exactly(10))?;
        let mut expected = KVec::new();
        for _ in 0..5 {
            alloc(&space, SetId::ROOT)?;
            expected.push(alloc(&space, set.id())?, GFP_KERNEL)?;
        }
        let mut found = KVec::new();
        space.for_each_in(set.id(), |id| {
            assert!(found.push(id, GFP_KERNEL).is_ok());
            // The callback may free the id.
            assert_eq!(space.free(set.key(id)), Ok(()));
        })?;
        assert_eq!(found[..], expected[..]);
        assert_eq!(set.used(), Ok(0));
        let unknown = SetId::new(77, 1);
        assert_eq!(space.for_each_in(unknown, |_| ()), Err(EINVAL));
        Ok(())
    }
}
