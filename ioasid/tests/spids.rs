// SPDX-License-Identifier: GPL-2.0

//! The rules for SPIDs.

use kernel::prelude::*;

use super::{
    any,
    space, //
};
use crate::{
    gfp::Gfp,
    id::range::{
        IdRange,
        INVALID, //
    },
    set::{
        Quota,
        SetId,
        Token, //
    }, //
};

#[kunit_tests(ioasid_spids)]
mod tests {
    use super::*;

    #[test]
    fn an_spid_is_attached_found_and_detached() -> Result {
        let space = space(100)?;
        let set = space.new_set(Token::None, Quota::Exactly(3))?;
        let id = set.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        assert_eq!(set.find_by_spid(5).err(), Some(ENOENT));
        assert_eq!(space.attach_spid(id.key(), 5), Ok(()));
        assert_eq!(set.find_by_spid(5)?.id(), id.id());
        assert_eq!(space.detach_spid(id.key()), Ok(()));
        assert_eq!(set.find_by_spid(5).err(), Some(ENOENT));
        assert_eq!(space.attach_spid(id.key(), 0), Ok(()));
        assert_eq!(set.find_by_spid(0)?.id(), id.id());
        Ok(())
    }

    #[test]
    fn an_id_has_one_spid_and_an_spid_one_id() -> Result {
        let space = space(100)?;
        let set = space.new_set(Token::None, Quota::Exactly(3))?;
        let one = set.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        let two = set.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        assert_eq!(space.attach_spid(one.key(), 5), Ok(()));
        assert_eq!(space.attach_spid(one.key(), 6), Err(EBUSY));
        assert_eq!(space.attach_spid(two.key(), 5), Err(EINVAL));
        assert_eq!(space.attach_spid(two.key(), 6), Ok(()));
        assert_eq!(space.attach_spid(two.key(), INVALID), Err(EINVAL));
        assert_eq!(space.attach_spid(any(99), 7), Err(ENOENT));
        assert_eq!(space.detach_spid(any(99)), Err(ENOENT));
        Ok(())
    }

    #[test]
    fn each_set_has_its_own_spids() -> Result {
        let space = space(100)?;
        let set = space.new_set(Token::None, Quota::Exactly(3))?;
        let other = space.new_set(Token::None, Quota::Exactly(3))?;
        let ours = set.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        let theirs = other.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        assert_eq!(space.attach_spid(ours.key(), 5), Ok(()));
        assert_eq!(other.find_by_spid(5).err(), Some(ENOENT));
        assert_eq!(space.attach_spid(theirs.key(), 5), Ok(()));
        assert_eq!(set.find_by_spid(5)?.id(), ours.id());
        assert_eq!(other.find_by_spid(5)?.id(), theirs.id());
        assert_eq!(space.get_by_spid(SetId::new(77, 1), 5).err(), Some(EINVAL));
        Ok(())
    }

    #[test]
    fn an_spid_is_released_with_its_id() -> Result {
        let space = space(100)?;
        let set = space.new_set(Token::None, Quota::Exactly(3))?;
        let id = set.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        space.attach_spid(id.key(), 5)?;
        let reference = id.get()?;
        drop(id);
        // It has been freed, so no reference can be taken. But the SPID is in use until the number
        // is released.
        assert_eq!(set.find_by_spid(5).err(), Some(EBUSY));
        assert_eq!(space.by_spid(set.id(), 5), Ok(reference.id()));
        drop(reference);
        assert_eq!(set.find_by_spid(5).err(), Some(ENOENT));
        let next = set.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        assert_eq!(space.attach_spid(next.key(), 5), Ok(()));
        Ok(())
    }
}
