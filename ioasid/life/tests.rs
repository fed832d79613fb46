// SPDX-License-Identifier: GPL-2.0

//! The rules for the word of an id.

use kernel::prelude::*;

#[kunit_tests(ioasid_life)]
mod cases {
    use super::super::*;

    use Right::{
        Anyone,
        Owner, //
    };

    /// Starts the first life of an id.
    fn born(owner: Right) -> Life {
        let life = Life::new();
        life.begin(Generation(0), owner, || ());
        life
    }

    impl Life {
        fn now(&self) -> Result<Living<'_>> {
            self.look().ok_or(ENOENT)
        }
    }

    #[test]
    fn one_reference_at_first() -> Result {
        for owner in [Anyone, Owner] {
            let now = born(owner);
            let now = now.now()?;
            assert_eq!((now.references(), now.state()), (1, State::Idle));
        }
        Ok(())
    }

    #[test]
    fn freed_once() -> Result {
        let life = born(Anyone);
        assert_eq!(life.now()?.free(Anyone), Ok(true));
        assert_eq!(life.now()?.free(Anyone), Ok(false));
        assert_eq!(life.now()?.state(), State::FreePending);
        Ok(())
    }

    #[test]
    fn last_reference_ends_it() -> Result {
        let life = born(Anyone);
        let first = life.now()?;
        assert_eq!(first.get(), Ok(()));
        assert_eq!(life.now()?.free(Anyone), Ok(true));
        assert_eq!(life.now()?.put(Anyone), Ok(Put::Held));
        assert!(first.goes_on());
        assert_eq!(life.now()?.put(Anyone), Ok(Put::Last));
        assert!(life.look().is_none());
        // A look at the first life has no effect on the second one.
        for _ in 0..2 {
            assert!(!first.goes_on());
            assert_eq!((first.get(), first.bind()), (Err(ENOENT), Err(ENOENT)));
            assert_eq!((first.hold(), first.disown()), (Err(ENOENT), Err(EPERM)));
            assert_eq!(first.free(Anyone), Err(ENOENT));
            assert_eq!(first.put(Anyone), Err(ENOENT));
            assert_eq!(first.free_and_put(Anyone), Err(ENOENT));
            if life.look().is_none() {
                life.begin(Generation(1), Anyone, || ());
            }
            let now = life.now()?;
            assert_eq!((now.references(), now.state()), (1, State::Idle));
            assert_ne!(now.generation(), first.generation());
        }
        Ok(())
    }

    #[test]
    fn lives_are_counted_round() -> Result {
        let life = Life::new();
        life.begin(Generation(u32::MAX), Anyone, || ());
        let last = life.now()?;
        assert_eq!(last.generation(), Generation(u32::MAX));
        assert_eq!(last.free_and_put(Anyone), Ok(Freed::Last));
        assert!(!last.goes_on());
        life.begin(Generation(0), Anyone, || ());
        assert!(!last.goes_on());
        assert_eq!(life.now()?.references(), 1);
        Ok(())
    }

    #[test]
    fn freed_in_one_step() -> Result {
        for owner in [Anyone, Owner] {
            let life = born(owner);
            assert_eq!(life.now()?.get(), Ok(()));
            assert_eq!(life.now()?.free_and_put(owner), Ok(Freed::Held));
            assert_eq!(life.now()?.free_and_put(owner), Ok(Freed::Before));
            let now = life.now()?;
            assert_eq!((now.references(), now.state()), (1, State::FreePending));
            // The handle no longer has its reference. The other reference does not belong to a
            // handle.
            assert_eq!(now.put(Anyone), Ok(Put::Last));
        }
        Ok(())
    }

    #[test]
    fn nobody_gets_a_freed_one() -> Result {
        let life = born(Anyone);
        assert_eq!(life.now()?.free(Anyone), Ok(true));
        assert_eq!(life.now()?.get(), Err(EBUSY));
        assert_eq!(life.now()?.bind(), Err(EBUSY));
        // Only operations on the existing id may still take a reference.
        assert_eq!(life.now()?.hold(), Ok(()));
        assert_eq!(life.now()?.references(), 2);
        Ok(())
    }

    #[test]
    fn last_reference_of_one_that_nobody_freed() -> Result {
        let life = born(Anyone);
        assert_eq!(life.now()?.put(Anyone), Ok(Put::NotFreed));
        assert_eq!(life.now()?.references(), 1);
        assert_eq!(life.now()?.free(Anyone), Ok(true));
        assert_eq!(life.now()?.put(Anyone), Ok(Put::Last));
        Ok(())
    }

    #[test]
    fn bound_and_unbound() -> Result {
        let life = born(Anyone);
        assert_eq!(life.now()?.unbind(), Err(EINVAL));
        assert_eq!(life.now()?.bind(), Ok(()));
        assert_eq!(
            (life.now()?.bind(), life.now()?.state()),
            (Err(EBUSY), State::Active)
        );
        assert_eq!(life.now()?.free(Anyone), Ok(true));
        assert_eq!(life.now()?.state(), State::FreePending);
        assert_eq!(life.now()?.unbind(), Ok(()));
        assert_eq!(life.now()?.unbind(), Err(EINVAL));
        Ok(())
    }

    #[test]
    fn what_a_handle_owns() -> Result {
        let life = born(Owner);
        let refused = |life: &Life| -> Result {
            assert_eq!(life.now()?.free(Anyone), Err(EPERM));
            assert_eq!(life.now()?.free_and_put(Anyone), Err(EPERM));
            assert_eq!(life.now()?.put(Anyone), Err(EPERM));
            Ok(())
        };
        refused(&life)?;
        assert_eq!(life.now()?.get(), Ok(()));
        assert_eq!(life.now()?.put(Anyone), Ok(Put::Held));
        refused(&life)?;
        // In two steps, the id belongs to the handle until the second one.
        assert_eq!(life.now()?.free(Owner), Ok(true));
        assert_eq!(life.now()?.free(Anyone), Ok(false));
        assert_eq!(life.now()?.put(Anyone), Err(EPERM));
        assert_eq!(life.now()?.put(Owner), Ok(Put::Last));
        assert!(life.look().is_none());
        Ok(())
    }

    #[test]
    fn what_a_handle_gave_away() -> Result {
        let life = born(Owner);
        assert_eq!(life.now()?.disown(), Ok(()));
        assert_eq!(life.now()?.disown(), Err(EPERM));
        assert_eq!(life.now()?.free(Owner), Err(EPERM));
        assert_eq!(life.now()?.put(Owner), Err(EPERM));
        assert_eq!(life.now()?.free(Anyone), Ok(true));
        assert_eq!(life.now()?.put(Anyone), Ok(Put::Last));
        Ok(())
    }

    #[test]
    fn a_number_out_of_use_is_nobodys() {
        let life = born(Owner);
        let first = life.look().map(|living| living.free_and_put(Owner));
        assert_eq!(first, Some(Ok(Freed::Last)));
        // The next life starts without an owner.
        life.begin(Generation(1), Anyone, || ());
        let freed = life.look().map(|living| living.free_and_put(Anyone));
        assert_eq!(freed, Some(Ok(Freed::Last)));
    }

    #[test]
    fn too_many_references() -> Result {
        let life = Life(Atomic::new(REFERENCES.into()));
        assert_eq!(life.now()?.get(), Err(EOVERFLOW));
        assert_eq!(life.now()?.hold(), Err(EOVERFLOW));
        assert_eq!(life.now()?.put(Anyone), Ok(Put::Held));
        assert_eq!(life.now()?.get(), Ok(()));
        Ok(())
    }
}
