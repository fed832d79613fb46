// SPDX-License-Identifier: GPL-2.0

//! The rules of sets and capacities: quotas, promises, who they belong to.

use kernel::prelude::*;

use kernel_ext::gfp::Gfp;

use super::{
    alloc,
    space, //
};
use crate::{
    account::edquot,
    range::{
        IdRange,
        INVALID, //
    },
    set::{
        Quota,
        Token, //
    }, //
};

#[kunit_tests(ioasid_sets)]
mod tests {
    use super::*;

    #[test]
    fn quota() -> Result {
        let space = space(100)?;
        let set = space.new_set(Token::None, Quota::Exactly(2))?;
        let first = set.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        let _second = set.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        let third = || set.alloc(IdRange::ALL, 0, Gfp::Kernel).err();
        assert_eq!(third(), Some(edquot()));
        assert_eq!((set.quota(), set.used()), (2, 2));
        drop(first);
        assert_eq!(third(), None);
        Ok(())
    }

    #[test]
    fn an_allocation_that_fails_takes_nothing() -> Result {
        let space = space(10)?;
        let set = space.new_set(Token::None, Quota::Exactly(2))?;
        let beyond = IdRange::new(10, 20)?;
        assert_eq!(set.alloc(beyond, 0, Gfp::Kernel).err(), Some(ENOSPC));
        assert_eq!((set.used(), space.own_ids()), (0, 0));
        Ok(())
    }

    #[test]
    fn quotas_are_promises() -> Result {
        let space = space(11)?;
        let new = |quota| space.new_set(Token::None, quota);
        let seven = new(Quota::Exactly(7))?;
        assert_eq!(new(Quota::Exactly(4)).err(), Some(ENOSPC));
        assert_eq!(new(Quota::Exactly(0)).err(), Some(EINVAL));
        let rest = new(Quota::Rest)?;
        assert_eq!(rest.quota(), 3);
        assert_eq!(new(Quota::Rest).err(), Some(ENOSPC));
        assert_eq!(alloc(&space, 0), Err(edquot()));
        drop(seven);
        assert_eq!(new(Quota::Rest)?.quota(), 7);
        assert_eq!(alloc(&space, 0), Ok(1));
        assert_eq!(new(Quota::Rest)?.quota(), 6);
        Ok(())
    }

    #[test]
    fn reserved_capacity() -> Result {
        let space = space(11)?;
        assert_eq!(space.reserve_capacity(8), Ok(()));
        assert_eq!(space.reserve_capacity(3), Err(ENOSPC));
        assert_eq!(space.new_set(Token::None, Quota::Rest)?.quota(), 2);
        space.cancel_capacity(8);
        assert_eq!(space.new_set(Token::None, Quota::Rest)?.quota(), 10);
        Ok(())
    }

    #[test]
    fn capacity_is_set_once() -> Result {
        let space = space(100)?;
        let id = alloc(&space, 0)?;
        assert_eq!(space.install_capacity(50), Err(EBUSY));
        space.free(None, id)?;
        for bad in [0, 1, INVALID] {
            assert_eq!(space.install_capacity(bad), Err(EINVAL));
        }
        assert_eq!(space.install_capacity(3), Ok(()));
        assert_eq!(space.install_capacity(50), Err(EBUSY));
        assert_eq!(alloc(&space, 0), Ok(1));
        assert_eq!(alloc(&space, 0), Ok(2));
        assert_eq!(alloc(&space, 0), Err(edquot()));
        Ok(())
    }

    #[test]
    fn freed_when_empty() -> Result {
        let space = space(100)?;
        let set = space.new_set(Token::None, Quota::Rest)?.into_handle();
        let id = alloc(&space, set)?;
        assert_eq!(space.free_set(set), Err(EBUSY));
        space.free(Some(set), id)?;
        let second = space.get_set(set)?;
        assert_eq!(space.free_set(set), Ok(()));
        // The other handle keeps the number, but nothing is allocated, and the quota is back.
        assert_eq!(alloc(&space, set), Err(EINVAL));
        assert_eq!(space.get_set(set).err(), Some(EINVAL));
        assert_eq!(space.free_set(set), Err(EINVAL));
        assert_eq!(space.new_set(Token::None, Quota::Rest)?.quota(), 99);
        drop(second);
        for unknown in [set, 77, 0] {
            assert_eq!(space.free_set(unknown), Err(EINVAL));
        }
        Ok(())
    }

    #[test]
    fn ids_outlive_the_value() -> Result {
        let space = space(100)?;
        let set = space.new_set(Token::None, Quota::Rest)?;
        let id = set.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        let number = set.number();
        drop(set);
        assert_eq!(alloc(&space, number), Err(EINVAL));
        let rest = || space.new_set(Token::None, Quota::Rest).err();
        assert_eq!(rest(), Some(ENOSPC));
        drop(id);
        assert_eq!(rest(), None);
        assert_eq!(alloc(&space, number), Err(EINVAL));
        Ok(())
    }

    #[test]
    fn a_process_has_one() -> Result {
        let space = space(100)?;
        let new = |token| space.new_set(token, Quota::Exactly(1));
        assert_eq!(space.find_mm_set(0x1000).err(), Some(ENOENT));
        let set = new(Token::Mm(0x1000))?;
        assert_eq!(new(Token::Mm(0x1000)).err(), Some(EEXIST));
        let _other = new(Token::Mm(0x2000))?;
        let _same_address = new(Token::Private(0x1000))?;
        let _again = new(Token::Private(0x1000))?;
        let found = space.find_mm_set(0x1000)?;
        assert_eq!(found.number(), set.number());
        drop(set);
        assert_eq!(new(Token::Mm(0x1000)).err(), Some(EEXIST));
        drop(found);
        assert_eq!(new(Token::Mm(0x1000)).err(), None);
        Ok(())
    }

    #[test]
    fn each_id_of_a_set() -> Result {
        let space = space(100)?;
        let set = space.new_set(Token::None, Quota::Exactly(10))?;
        let mut expected = KVec::new();
        for _ in 0..5 {
            alloc(&space, 0)?;
            expected.push(alloc(&space, set.number())?, GFP_KERNEL)?;
        }
        let mut found = KVec::new();
        space.for_each_in(set.number(), |id| {
            let _ = found.push(id, GFP_KERNEL);
            // What is called may free the id.
            let _ = set.free(id);
        })?;
        assert_eq!(found[..], expected[..]);
        assert_eq!(set.used(), 0);
        assert_eq!(space.for_each_in(77, |_| ()), Err(EINVAL));
        Ok(())
    }
}
