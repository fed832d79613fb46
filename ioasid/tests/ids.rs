// SPDX-License-Identifier: GPL-2.0

//! The rules of ids: allocated, found, referred to, freed, bound.

use kernel::prelude::*;

use kernel_ext::gfp::Gfp;

use super::{
    alloc,
    space, //
};
use crate::{
    account::edquot,
    notify::{
        Audience,
        Event, //
    },
    range::{
        IdRange,
        INVALID, //
    },
    set::{
        Quota,
        Token, //
    }, //
    state::State,
};

#[kunit_tests(ioasid_ids)]
mod tests {
    use super::*;

    #[test]
    fn lowest_of_the_range_first() -> Result {
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
    fn ends_of_the_space() -> Result {
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
    fn full() -> Result {
        let space = space(500)?;
        for expected in 1..500 {
            assert_eq!(alloc(&space, 0), Ok(expected));
        }
        assert_eq!(alloc(&space, 0), Err(edquot()));
        space.free(None, 250)?;
        assert_eq!(alloc(&space, 0), Ok(250));
        Ok(())
    }

    #[test]
    fn a_value_frees_what_it_owns() -> Result {
        let space = space(100)?;
        let set = space.new_set(Token::None, Quota::Exactly(2))?;
        let id = set.alloc(IdRange::ALL, 7, Gfp::Kernel)?;
        assert_eq!(set.free(id.id()), Err(EPERM));
        assert_eq!(space.free(None, id.id()), Err(EPERM));
        assert_eq!(space.put(None, id.id()), Err(EPERM));
        let number = id.id();
        drop(id);
        assert_eq!(space.state(number), Err(ENOENT));
        assert_eq!(set.used(), 0);
        let number = set.alloc(IdRange::ALL, 7, Gfp::Kernel)?.into_id();
        assert_eq!(space.state(number), Ok(State::Idle));
        assert_eq!(set.free(number), Ok(()));
        assert_eq!(space.state(number), Err(ENOENT));
        Ok(())
    }

    #[test]
    fn found_with_its_data() -> Result {
        let space = space(100)?;
        let set = space.new_set(Token::None, Quota::Exactly(2))?;
        let other = space.new_set(Token::None, Quota::Exactly(2))?;
        let id = set.alloc(IdRange::ALL, 0x1234, Gfp::Kernel)?;
        let find = |set, id| space.find(set, id, |data| data);
        assert_eq!(find(None, id.id()), Ok(0x1234));
        assert_eq!(find(Some(set.number()), id.id()), Ok(0x1234));
        assert_eq!(find(Some(other.number()), id.id()), Err(EACCES));
        assert_eq!(find(Some(0), id.id()), Err(EACCES));
        assert_eq!(find(None, id.id() + 1), Err(ENOENT));
        assert_eq!(find(None, INVALID), Err(ENOENT));
        Ok(())
    }

    #[test]
    fn data_comes_and_goes() -> Result {
        let space = space(100)?;
        let id = space.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        let data = || space.find(None, id.id(), |data| data);
        assert_eq!(space.attach_data(id.id(), 5), Ok(()));
        assert_eq!(space.attach_data(id.id(), 6), Err(EBUSY));
        assert_eq!(data(), Ok(5));
        assert_eq!(space.set_data(id.id(), 6), Ok(()));
        assert_eq!(data(), Ok(6));
        assert_eq!(space.detach_data(id.id()), Ok(()));
        assert_eq!(data(), Ok(0));
        assert_eq!(space.attach_data(id.id(), 7), Ok(()));
        for result in [
            space.attach_data(99, 1),
            space.set_data(99, 1),
            space.detach_data(99),
        ] {
            assert_eq!(result, Err(ENOENT));
        }
        Ok(())
    }

    #[test]
    fn reused_when_the_last_reference_is_gone() -> Result {
        let space = space(3)?;
        let id = alloc(&space, 0)?;
        let reference = space.get(None, id)?;
        space.free(None, id)?;
        assert_eq!(reference.state(), State::FreePending);
        assert_eq!(space.get(None, id).err(), Some(EBUSY));
        assert_eq!(space.find(None, id, |_| ()), Ok(()));
        assert_eq!(alloc(&space, 0), Ok(id + 1));
        assert_eq!(alloc(&space, 0), Err(edquot()));
        drop(reference);
        assert_eq!(space.get(None, id).err(), Some(ENOENT));
        assert_eq!(alloc(&space, 0), Ok(id));
        Ok(())
    }

    #[test]
    fn freed_once() -> Result {
        let space = space(100)?;
        let id = alloc(&space, 0)?;
        let reference = space.get(None, id)?;
        assert_eq!(space.free(None, id), Ok(()));
        assert_eq!(space.free(None, id), Ok(()));
        drop(reference);
        assert_eq!(space.free(None, id), Err(ENOENT));
        assert_eq!(space.put(None, id), Err(ENOENT));
        Ok(())
    }

    #[test]
    fn the_last_put_frees() -> Result {
        let space = space(100)?;
        let id = alloc(&space, 0)?;
        space.get(None, id)?.into_id();
        assert_eq!(space.put(None, id), Ok(false));
        assert_eq!(space.put(None, id), Ok(true));
        assert_eq!(space.put(None, id), Err(ENOENT));
        Ok(())
    }

    #[test]
    fn only_in_its_own_set() -> Result {
        let space = space(100)?;
        let set = space.new_set(Token::None, Quota::Exactly(2))?;
        let other = space.new_set(Token::None, Quota::Exactly(2))?;
        let id = alloc(&space, set.number())?;
        assert_eq!(other.free(id), Err(EACCES));
        assert_eq!(other.get(id).err(), Some(EACCES));
        assert_eq!(space.put(Some(other.number()), id), Err(EACCES));
        assert_eq!(space.state(id), Ok(State::Idle));
        assert_eq!(set.free(id), Ok(()));
        Ok(())
    }

    #[test]
    fn bound_and_unbound() -> Result {
        let space = space(100)?;
        let id = space.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        assert_eq!(id.unbind(), Err(EINVAL));
        assert_eq!(id.bind(), Ok(()));
        assert_eq!((id.state(), id.bind()), (State::Active, Err(EBUSY)));
        assert_eq!(id.unbind(), Ok(()));
        assert_eq!(id.state(), State::Idle);
        let notify = |event| space.notify(id.id(), event, Audience::EVERYBODY);
        assert_eq!(notify(Event::Alloc), Err(EINVAL));
        assert_eq!(notify(Event::Free), Err(EINVAL));
        assert_eq!(space.bind(99), Err(ENOENT));
        Ok(())
    }
}
