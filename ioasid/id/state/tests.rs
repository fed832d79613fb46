// SPDX-License-Identifier: GPL-2.0

//! The rules for the word of an id.

use kernel::prelude::*;

#[kunit_tests(ioasid_state)]
mod cases {
    use super::super::*;

    use Right::{
        Anyone,
        Owner, //
    };

    /// Starts the first lifetime of an id.
    fn born(owner: Right) -> StateWord {
        let lifetime = StateWord::new();
        lifetime.begin(Generation(0), owner, || ());
        lifetime
    }

    impl StateWord {
        fn now(&self) -> Result<Lifetime<'_>> {
            self.lookup().ok_or(ENOENT)
        }
    }

    #[test]
    fn a_lifetime_starts_idle_with_one_reference() -> Result {
        for owner in [Anyone, Owner] {
            let now = born(owner);
            let now = now.now()?;
            assert_eq!((now.references(), now.state()), (1, IdState::Idle));
        }
        Ok(())
    }

    #[test]
    fn only_the_first_free_has_an_effect() -> Result {
        let lifetime = born(Anyone);
        assert_eq!(lifetime.now()?.free(Anyone), Ok(true));
        assert_eq!(lifetime.now()?.free(Anyone), Ok(false));
        assert_eq!(lifetime.now()?.state(), IdState::FreePending);
        Ok(())
    }

    #[test]
    fn the_last_put_ends_the_lifetime() -> Result {
        let lifetime = born(Anyone);
        let first = lifetime.now()?;
        assert_eq!(first.get(), Ok(()));
        assert_eq!(lifetime.now()?.free(Anyone), Ok(true));
        assert_eq!(lifetime.now()?.put(Anyone), Ok(Put::Held));
        assert!(first.is_current());
        assert_eq!(lifetime.now()?.put(Anyone), Ok(Put::Last));
        assert!(lifetime.lookup().is_none());
        // A lookup of the first lifetime has no effect on the second one.
        for _ in 0..2 {
            assert!(!first.is_current());
            assert_eq!((first.get(), first.bind()), (Err(ENOENT), Err(ENOENT)));
            assert_eq!((first.hold(), first.disown()), (Err(ENOENT), Err(EPERM)));
            assert_eq!(first.free(Anyone), Err(ENOENT));
            assert_eq!(first.put(Anyone), Err(ENOENT));
            assert_eq!(first.free_and_put(Anyone), Err(ENOENT));
            if lifetime.lookup().is_none() {
                lifetime.begin(Generation(1), Anyone, || ());
            }
            let now = lifetime.now()?;
            assert_eq!((now.references(), now.state()), (1, IdState::Idle));
            assert_ne!(now.generation(), first.generation());
        }
        Ok(())
    }

    #[test]
    fn generations_wrap_around() -> Result {
        let lifetime = StateWord::new();
        lifetime.begin(Generation(u32::MAX), Anyone, || ());
        let last = lifetime.now()?;
        assert_eq!(last.generation(), Generation(u32::MAX));
        assert_eq!(last.free_and_put(Anyone), Ok(Freed::Last));
        assert!(!last.is_current());
        lifetime.begin(Generation(0), Anyone, || ());
        assert!(!last.is_current());
        assert_eq!(lifetime.now()?.references(), 1);
        Ok(())
    }

    #[test]
    fn free_and_put_frees_and_drops_the_reference() -> Result {
        for owner in [Anyone, Owner] {
            let lifetime = born(owner);
            assert_eq!(lifetime.now()?.get(), Ok(()));
            assert_eq!(lifetime.now()?.free_and_put(owner), Ok(Freed::Held));
            assert_eq!(lifetime.now()?.free_and_put(owner), Ok(Freed::Before));
            let now = lifetime.now()?;
            assert_eq!((now.references(), now.state()), (1, IdState::FreePending));
            // The handle no longer has its reference. The other reference does not belong to a
            // handle.
            assert_eq!(now.put(Anyone), Ok(Put::Last));
        }
        Ok(())
    }

    #[test]
    fn no_reference_can_be_taken_to_a_freed_id() -> Result {
        let lifetime = born(Anyone);
        assert_eq!(lifetime.now()?.free(Anyone), Ok(true));
        assert_eq!(lifetime.now()?.get(), Err(EBUSY));
        assert_eq!(lifetime.now()?.bind(), Err(EBUSY));
        // Only operations on the existing id may still take a reference.
        assert_eq!(lifetime.now()?.hold(), Ok(()));
        assert_eq!(lifetime.now()?.references(), 2);
        Ok(())
    }

    #[test]
    fn the_last_put_of_an_id_that_is_not_freed_drops_nothing() -> Result {
        let lifetime = born(Anyone);
        assert_eq!(lifetime.now()?.put(Anyone), Ok(Put::NotFreed));
        assert_eq!(lifetime.now()?.references(), 1);
        assert_eq!(lifetime.now()?.free(Anyone), Ok(true));
        assert_eq!(lifetime.now()?.put(Anyone), Ok(Put::Last));
        Ok(())
    }

    #[test]
    fn an_id_is_bound_once_and_unbound_once() -> Result {
        let lifetime = born(Anyone);
        assert_eq!(lifetime.now()?.unbind(), Err(EINVAL));
        assert_eq!(lifetime.now()?.bind(), Ok(()));
        assert_eq!(
            (lifetime.now()?.bind(), lifetime.now()?.state()),
            (Err(EBUSY), IdState::Active)
        );
        assert_eq!(lifetime.now()?.free(Anyone), Ok(true));
        assert_eq!(lifetime.now()?.state(), IdState::FreePending);
        assert_eq!(lifetime.now()?.unbind(), Ok(()));
        assert_eq!(lifetime.now()?.unbind(), Err(EINVAL));
        Ok(())
    }

    #[test]
    fn an_owned_id_can_only_be_freed_by_its_handle() -> Result {
        let lifetime = born(Owner);
        let refused = |lifetime: &StateWord| -> Result {
            assert_eq!(lifetime.now()?.free(Anyone), Err(EPERM));
            assert_eq!(lifetime.now()?.free_and_put(Anyone), Err(EPERM));
            assert_eq!(lifetime.now()?.put(Anyone), Err(EPERM));
            Ok(())
        };
        refused(&lifetime)?;
        assert_eq!(lifetime.now()?.get(), Ok(()));
        assert_eq!(lifetime.now()?.put(Anyone), Ok(Put::Held));
        refused(&lifetime)?;
        // In two steps, the id belongs to the handle until the second one.
        assert_eq!(lifetime.now()?.free(Owner), Ok(true));
        assert_eq!(lifetime.now()?.free(Anyone), Ok(false));
        assert_eq!(lifetime.now()?.put(Anyone), Err(EPERM));
        assert_eq!(lifetime.now()?.put(Owner), Ok(Put::Last));
        assert!(lifetime.lookup().is_none());
        Ok(())
    }

    #[test]
    fn a_disowned_id_can_be_freed_by_any_caller() -> Result {
        let lifetime = born(Owner);
        assert_eq!(lifetime.now()?.disown(), Ok(()));
        assert_eq!(lifetime.now()?.disown(), Err(EPERM));
        assert_eq!(lifetime.now()?.free(Owner), Err(EPERM));
        assert_eq!(lifetime.now()?.put(Owner), Err(EPERM));
        assert_eq!(lifetime.now()?.free(Anyone), Ok(true));
        assert_eq!(lifetime.now()?.put(Anyone), Ok(Put::Last));
        Ok(())
    }

    #[test]
    fn a_new_lifetime_does_not_inherit_the_owner() {
        let lifetime = born(Owner);
        let first = lifetime.lookup().map(|living| living.free_and_put(Owner));
        assert_eq!(first, Some(Ok(Freed::Last)));
        // The next lifetime starts without an owner.
        lifetime.begin(Generation(1), Anyone, || ());
        let freed = lifetime.lookup().map(|living| living.free_and_put(Anyone));
        assert_eq!(freed, Some(Ok(Freed::Last)));
    }

    #[test]
    fn too_many_references_are_refused() -> Result {
        let lifetime = StateWord(Atomic::new(REFERENCES.into()));
        assert_eq!(lifetime.now()?.get(), Err(EOVERFLOW));
        assert_eq!(lifetime.now()?.hold(), Err(EOVERFLOW));
        assert_eq!(lifetime.now()?.put(Anyone), Ok(Put::Held));
        assert_eq!(lifetime.now()?.get(), Ok(()));
        Ok(())
    }
}
