// SPDX-License-Identifier: GPL-2.0

//! The protection that handles have against callers that know the number, and against later users
//! of the number.

use kernel::{
    new_mutex,
    prelude::*,
    sync::Arc, //
};

use super::{
    alloc,
    any,
    on_event,
    space, //
};
use crate::{
    gfp::Gfp,
    id::{
        key::Key,
        range::IdRange,
        state::{
            Generation,
            IdState,
            Right, //
        }, //
    },
    notifier::{
        Event,
        Scope, //
    },
    set::{
        Quota,
        SetId,
        Token, //
    }, //
};

#[kunit_tests(ioasid_handles)]
mod tests {
    use super::*;

    #[test]
    fn only_the_handle_can_free_its_id_at_any_time() -> Result {
        let space = space(100)?;
        let results = Arc::pin_init(new_mutex!(KVec::new()), GFP_KERNEL)?;
        let (theirs, log) = (space.clone(), results.clone());
        // At each event, another user tries to free the id and to drop its reference.
        on_event(&space, Scope::All, 0, 1, move |event, args| {
            let key = any(args.id);
            let result = (event, theirs.free(key), theirs.put(key));
            assert!(log.lock().push(result, GFP_KERNEL).is_ok());
        })?;
        let id = space.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        let number = id.id();
        assert_eq!(id.state(), Ok(IdState::Idle));
        drop(id);
        assert_eq!(space.state(any(number)), Err(ENOENT));
        let expected = [
            (Event::Alloc, Err(EPERM), Err(EPERM)),
            (Event::Free, Ok(()), Err(EPERM)),
        ];
        assert_eq!(results.lock()[..], expected[..]);
        space.notifiers.unregister(Scope::All, 1)
    }

    #[test]
    fn the_key_of_a_handle_cannot_free_the_id() -> Result {
        let space = space(100)?;
        let id = space.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        assert_eq!(space.free(id.key()), Err(EPERM));
        assert_eq!(space.put(id.key()), Err(EPERM));
        assert_eq!(id.into_id(), 1);
        assert_eq!(space.free(any(1)), Ok(()));
        Ok(())
    }

    #[test]
    fn an_old_key_does_not_affect_the_next_id() -> Result {
        let space = space(3)?;
        let set = space.new_set(Token::None, Quota::Exactly(1))?;
        let first = set.alloc(IdRange::new(1, 1)?, 7, Gfp::Kernel)?;
        let old = first.key();
        drop(first);
        let next = set.alloc(IdRange::new(1, 1)?, 0, Gfp::Kernel)?;
        space.attach_spid(next.key(), 5)?;
        assert_eq!((old.id(), next.id()), (1, 1));
        let refused = [
            space.find(old, |_| ()),
            space.set_data(old, 8),
            space.attach_data(old, 8),
            space.detach_data(old),
            space.attach_spid(old, 6),
            space.detach_spid(old),
            space.bind(old),
            space.unbind(old),
            space.free(old),
            space.put(old).map(drop),
            space.get(old).map(drop),
            space.state(old).map(drop),
        ];
        assert!(refused.iter().all(|&result| result == Err(ENOENT)));
        assert_eq!(space.find(next.key(), |data| data), Ok(0));
        assert_eq!(set.find_by_spid(5)?.id(), 1);
        assert_eq!(next.state(), Ok(IdState::Idle));
        Ok(())
    }

    #[test]
    fn an_old_key_fails_after_its_leaf_was_freed() -> Result {
        let space = space(10_000)?;
        let filter = IdRange::new(1, 1)?;
        let old = space.alloc(filter, 0, Gfp::Kernel)?.key();
        // The leaf of the tree is freed when the next one becomes empty. Then the number gets a new
        // leaf.
        drop(space.alloc(IdRange::new(5000, 5000)?, 0, Gfp::Kernel)?);
        assert_eq!(space.state(old), Err(ENOENT));
        let next = space.alloc(filter, 0, Gfp::Kernel)?;
        assert_eq!(space.put(old), Err(ENOENT));
        assert_eq!(space.find(old, |_| ()), Err(ENOENT));
        assert_eq!(next.state(), Ok(IdState::Idle));
        Ok(())
    }

    #[test]
    fn a_stolen_reference_does_not_affect_the_next_id() -> Result {
        let space = space(3)?;
        let filter = IdRange::new(1, 1)?;
        let id = alloc(&space, SetId::ROOT)?;
        let reference = space.get(any(id))?;
        // Drop references that belong to others, and let the number be reused.
        assert_eq!(space.put(any(id)), Ok(false));
        assert_eq!(space.put(any(id)), Ok(true));
        let next = space.alloc(filter, 0, Gfp::Kernel)?;
        assert_eq!(reference.state(), Err(ENOENT));
        drop(reference);
        assert_eq!(next.state(), Ok(IdState::Idle));
        Ok(())
    }

    #[test]
    fn data_of_a_freed_id_can_be_changed_while_references_exist() -> Result {
        let space = space(100)?;
        let id = alloc(&space, SetId::ROOT)?;
        space.attach_spid(any(id), 5)?;
        let reference = space.get(any(id))?;
        space.free(any(id))?;
        // The remaining users may clean up.
        assert_eq!(space.set_data(any(id), 7), Ok(()));
        assert_eq!(space.find(reference.key(), |data| data), Ok(7));
        assert_eq!(space.detach_spid(any(id)), Ok(()));
        assert_eq!(space.by_spid(SetId::ROOT, 5), Err(ENOENT));
        assert_eq!(space.attach_spid(any(id), 5), Err(EBUSY));
        drop(reference);
        assert!(space.is_unused());
        Ok(())
    }

    #[test]
    fn an_old_set_id_does_not_affect_the_next_set() -> Result {
        let space = space(100)?;
        let set = space.new_set(Token::Mm(0x1000), Quota::Exactly(1))?;
        let old = set.id();
        drop(set);
        let next = space.new_set(Token::Mm(0x2000), Quota::Exactly(1))?;
        assert_eq!(old.number(), next.id().number());
        let id = alloc(&space, next.id())?;
        let refused = [
            alloc(&space, old).map(drop),
            space.get_set(old).map(drop),
            space.put_set(old),
            space.free_set(old),
            space.for_each_in(old, |_| ()),
            space.by_spid(old, 5).map(drop),
        ];
        assert!(refused.iter().all(|&result| result == Err(EINVAL)));
        let key = Key::new(Some(old), id);
        assert_eq!(space.free(key), Err(EACCES));
        assert_eq!(space.find(key, |_| ()), Err(EACCES));
        assert_eq!(space.find_mm_set(0x1000).err(), Some(ENOENT));
        assert_eq!(space.find_mm_set(0x2000)?.id(), next.id());
        space.free(next.key(id))
    }

    #[test]
    fn unknown_sets_and_handles_are_refused() -> Result {
        let space = space(100)?;
        for set in [SetId::new(0, 1), SetId::new(u32::MAX, u32::MAX)] {
            assert_eq!(alloc(&space, set), Err(EINVAL));
            assert_eq!(SetId::from_raw(set.to_raw()), set);
        }
        let id = space.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        let key = Key::of_lifetime(id.id(), Generation::from_raw(77), Right::Owner);
        assert_eq!(key.to_raw(), Some(77 << 32 | 1));
        assert_eq!(
            key.to_raw().map(|raw| Key::from_raw(raw, Right::Owner)),
            Some(key)
        );
        assert_eq!(space.free(key), Err(ENOENT));
        assert_eq!(any(1).to_raw(), None);
        Ok(())
    }
}
