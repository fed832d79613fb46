// SPDX-License-Identifier: GPL-2.0

//! The rules for allocating, finding, referencing, freeing and binding ids.

use kernel::prelude::*;

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
        },
        state::IdState, //
    },
    notifier::{
        Event,
        NotifyFlags, //
    },
    set::{
        account::edquot,
        Quota,
        SetId,
        Token, //
    }, //
};

#[kunit_tests(ioasid_ids)]
mod tests {
    use super::*;

    #[test]
    fn alloc_returns_the_lowest_free_id_of_the_range() -> Result {
        let space = space(100)?;
        let range = IdRange::new(10, 12)?;
        let a = space.alloc(range, 0, Gfp::Kernel)?;
        let b = space.alloc(range, 0, Gfp::Kernel)?;
        assert_eq!((a.id(), b.id()), (10, 11));
        drop(a);
        let c = space.alloc(range, 0, Gfp::Atomic)?;
        let d = space.alloc(range, 0, Gfp::Kernel)?;
        assert_eq!((c.id(), d.id()), (10, 12));
        assert_eq!(space.alloc(range, 0, Gfp::Kernel).err(), Some(ENOSPC));
        Ok(())
    }

    #[test]
    fn ids_are_between_the_floor_and_the_capacity() -> Result {
        let space = space(100)?;
        let all = IdRange::ALL;
        assert_eq!(space.alloc(all, 0, Gfp::Kernel)?.id(), 1);
        let last = IdRange::new(99, 200)?;
        let _held = space.alloc(last, 0, Gfp::Kernel)?;
        assert_eq!(_held.id(), 99);
        for beyond in [last, IdRange::new(0, 0)?, IdRange::new(100, 100)?] {
            assert_eq!(space.alloc(beyond, 0, Gfp::Kernel).err(), Some(ENOSPC));
        }
        Ok(())
    }

    #[test]
    fn a_full_space_has_no_id_until_one_is_freed() -> Result {
        let space = space(500)?;
        for expected in 1..500 {
            assert_eq!(alloc(&space, SetId::ROOT), Ok(expected));
        }
        assert_eq!(alloc(&space, SetId::ROOT), Err(edquot()));
        space.free(any(250))?;
        assert_eq!(alloc(&space, SetId::ROOT), Ok(250));
        Ok(())
    }

    #[test]
    fn a_pasid_frees_its_id_when_dropped() -> Result {
        let space = space(100)?;
        let set = space.new_set(Token::None, Quota::Exactly(2))?;
        let id = set.alloc(IdRange::ALL, 7, Gfp::Kernel)?;
        assert_eq!(space.free(set.key(id.id())), Err(EPERM));
        assert_eq!(space.free(id.key()), Err(EPERM));
        assert_eq!(space.free(any(id.id())), Err(EPERM));
        assert_eq!(space.put(any(id.id())), Err(EPERM));
        let number = id.id();
        drop(id);
        assert_eq!(space.state(any(number)), Err(ENOENT));
        assert_eq!(set.used(), Ok(0));
        let number = set.alloc(IdRange::ALL, 7, Gfp::Kernel)?.into_id();
        assert_eq!(space.state(any(number)), Ok(IdState::Idle));
        assert_eq!(space.free(set.key(number)), Ok(()));
        assert_eq!(space.state(any(number)), Err(ENOENT));
        Ok(())
    }

    #[test]
    fn find_returns_the_private_data_of_an_id_in_the_set() -> Result {
        let space = space(100)?;
        let set = space.new_set(Token::None, Quota::Exactly(2))?;
        let other = space.new_set(Token::None, Quota::Exactly(2))?;
        let id = set.alloc(IdRange::ALL, 0x1234, Gfp::Kernel)?;
        let find = |set, id| space.find(Key::new(set, id), |data| data);
        assert_eq!(find(None, id.id()), Ok(0x1234));
        assert_eq!(find(Some(set.id()), id.id()), Ok(0x1234));
        assert_eq!(find(Some(other.id()), id.id()), Err(EACCES));
        assert_eq!(find(Some(SetId::ROOT), id.id()), Err(EACCES));
        assert_eq!(find(None, id.id() + 1), Err(ENOENT));
        assert_eq!(find(None, INVALID), Err(ENOENT));
        Ok(())
    }

    #[test]
    fn private_data_is_attached_replaced_and_detached() -> Result {
        let space = space(100)?;
        let id = space.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        let data = || space.find(any(id.id()), |data| data);
        assert_eq!(space.attach_data(any(id.id()), 5), Ok(()));
        assert_eq!(space.attach_data(any(id.id()), 6), Err(EBUSY));
        assert_eq!(data(), Ok(5));
        assert_eq!(space.set_data(any(id.id()), 6), Ok(()));
        assert_eq!(data(), Ok(6));
        assert_eq!(space.detach_data(any(id.id())), Ok(()));
        assert_eq!(data(), Ok(0));
        assert_eq!(space.attach_data(any(id.id()), 7), Ok(()));
        for result in [
            space.attach_data(any(99), 1),
            space.set_data(any(99), 1),
            space.detach_data(any(99)),
        ] {
            assert_eq!(result, Err(ENOENT));
        }
        Ok(())
    }

    #[test]
    fn a_number_is_reused_after_the_last_reference_is_dropped() -> Result {
        let space = space(3)?;
        let id = alloc(&space, SetId::ROOT)?;
        let reference = space.get(any(id))?;
        space.free(any(id))?;
        assert_eq!(reference.state(), Ok(IdState::FreePending));
        assert_eq!(space.get(any(id)).err(), Some(EBUSY));
        assert_eq!(space.find(any(id), |_| ()), Ok(()));
        assert_eq!(alloc(&space, SetId::ROOT), Ok(id + 1));
        assert_eq!(alloc(&space, SetId::ROOT), Err(edquot()));
        drop(reference);
        assert_eq!(space.get(any(id)).err(), Some(ENOENT));
        assert_eq!(alloc(&space, SetId::ROOT), Ok(id));
        Ok(())
    }

    #[test]
    fn freeing_an_id_twice_has_no_effect() -> Result {
        let space = space(100)?;
        let id = alloc(&space, SetId::ROOT)?;
        let reference = space.get(any(id))?;
        assert_eq!(space.free(any(id)), Ok(()));
        assert_eq!(space.free(any(id)), Ok(()));
        drop(reference);
        assert_eq!(space.free(any(id)), Err(ENOENT));
        assert_eq!(space.put(any(id)), Err(ENOENT));
        Ok(())
    }

    #[test]
    fn the_last_put_frees_the_id() -> Result {
        let space = space(100)?;
        let id = alloc(&space, SetId::ROOT)?;
        space.get(any(id))?.into_id();
        assert_eq!(space.put(any(id)), Ok(false));
        assert_eq!(space.put(any(id)), Ok(true));
        assert_eq!(space.put(any(id)), Err(ENOENT));
        Ok(())
    }

    #[test]
    fn an_id_of_another_set_is_refused() -> Result {
        let space = space(100)?;
        let set = space.new_set(Token::None, Quota::Exactly(2))?;
        let other = space.new_set(Token::None, Quota::Exactly(2))?;
        let id = alloc(&space, set.id())?;
        assert_eq!(space.free(other.key(id)), Err(EACCES));
        assert_eq!(space.get(other.key(id)).err(), Some(EACCES));
        assert_eq!(space.put(other.key(id)), Err(EACCES));
        assert_eq!(space.state(any(id)), Ok(IdState::Idle));
        assert_eq!(space.free(set.key(id)), Ok(()));
        Ok(())
    }

    #[test]
    fn an_id_is_bound_and_unbound_once() -> Result {
        let space = space(100)?;
        let id = space.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        assert_eq!(id.unbind(), Err(EINVAL));
        assert_eq!(id.bind(), Ok(()));
        assert_eq!((id.state(), id.bind()), (Ok(IdState::Active), Err(EBUSY)));
        assert_eq!(id.unbind(), Ok(()));
        assert_eq!(id.state(), Ok(IdState::Idle));
        let notify = |event| space.notify(any(id.id()), event, NotifyFlags::BOTH);
        assert_eq!(notify(Event::Alloc), Err(EINVAL));
        assert_eq!(notify(Event::Free), Err(EINVAL));
        assert_eq!(space.bind(any(99)), Err(ENOENT));
        Ok(())
    }
}
