// SPDX-License-Identifier: GPL-2.0

//! The rules for custom allocators, with all of their errors.

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Completion, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
    workqueue, //
};

use super::{
    alloc,
    any,
    fake_allocator::{
        kind,
        FakeAllocator,
        Fault,
        Pause,
        Stock, //
    },
    space, //
};
use crate::{
    allocator::{
        Allocator,
        Removal,
        DEFAULT_ALLOCATOR, //
    },
    gfp::Gfp,
    id::{
        range::IdRange,
        state::IdState, //
    },
    set::{
        account::edquot,
        Quota,
        SetId,
        Token, //
    },
    space::Space, //
};

/// Registers an allocator of a kind with a key.
fn add(space: &Space, kind_number: usize, key: usize, stock: &Arc<Stock>) -> Result {
    space.add_allocator(
        kind(kind_number),
        key,
        FakeAllocator::new(stock, Fault::None)?,
    )
}

fn add_faulty(space: &Space, key: usize, fault: Fault) -> Result<Arc<Stock>> {
    let stock = Stock::new(100)?;
    space.add_allocator(kind(1), key, FakeAllocator::new(&stock, fault)?)?;
    Ok(stock)
}

#[kunit_tests(ioasid_allocators)]
mod tests {
    use super::*;

    #[test]
    fn the_first_allocator_is_active() -> Result {
        let space = space(1000)?;
        let (one, two) = (Stock::new(100)?, Stock::new(200)?);
        add(&space, 1, 10, &one)?;
        add(&space, 2, 20, &two)?;
        assert_eq!(alloc(&space, SetId::ROOT), Ok(100));
        assert_eq!((one.taken(), two.taken()), (1, 0));
        space.free(any(100))?;
        assert_eq!(one.taken(), 0);
        Ok(())
    }

    #[test]
    fn the_first_allocator_requires_an_empty_own_space() -> Result {
        let space = space(1000)?;
        let stock = Stock::new(100)?;
        let id = alloc(&space, SetId::ROOT)?;
        assert_eq!(add(&space, 1, 10, &stock), Err(EAGAIN));
        let reference = space.get(any(id))?;
        space.free(any(id))?;
        assert_eq!(add(&space, 1, 10, &stock), Err(EAGAIN));
        drop(reference);
        assert_eq!(add(&space, 1, 10, &stock), Ok(()));
        // A second allocator can be registered at any time.
        alloc(&space, SetId::ROOT)?;
        assert_eq!(add(&space, 2, 20, &stock), Ok(()));
        Ok(())
    }

    #[test]
    fn an_allocator_is_registered_once() -> Result {
        let space = space(1000)?;
        let stock = Stock::new(100)?;
        for key in [10, 11, 12] {
            add(&space, 1, key, &stock)?;
        }
        add(&space, 2, 20, &stock)?;
        for (kind, key) in [(1, 10), (1, 11), (1, 12), (2, 20), (2, 10), (3, 11)] {
            assert_eq!(add(&space, kind, key, &stock), Err(EEXIST));
        }
        assert_eq!(
            space.remove_allocator(11).map(|d| d.last_of_kind),
            Ok(false)
        );
        assert_eq!(add(&space, 1, 11, &stock), Ok(()));
        Ok(())
    }

    #[test]
    fn an_unknown_allocator_cannot_be_unregistered() -> Result {
        let space = space(1000)?;
        let stock = Stock::new(100)?;
        assert_eq!(space.remove_allocator(10), Err(ENOENT));
        add(&space, 1, 10, &stock)?;
        assert_eq!(space.remove_allocator(11), Err(ENOENT));
        assert_eq!(alloc(&space, SetId::ROOT), Ok(100));
        Ok(())
    }

    #[test]
    fn allocators_of_one_kind_share_ids() -> Result {
        let space = space(1000)?;
        let stock = Stock::new(100)?;
        add(&space, 1, 10, &stock)?;
        add(&space, 1, 11, &stock)?;
        let id = alloc(&space, SetId::ROOT)?;
        // When the first is removed, the other one frees its ids.
        let removal = space.remove_allocator(10)?;
        let expected = Removal {
            last_of_kind: false,
            handed_to: None,
        };
        assert_eq!(removal, expected);
        assert_eq!(space.find(any(id), |_| ()), Ok(()));
        space.free(any(id))?;
        assert_eq!((stock.taken(), space.orphans()), (0, 0));
        assert_eq!(alloc(&space, SetId::ROOT), Ok(100));
        Ok(())
    }

    #[test]
    fn the_next_kind_becomes_active_in_order_of_registration() -> Result {
        let space = space(1000)?;
        let stocks = [Stock::new(100)?, Stock::new(200)?, Stock::new(300)?];
        for (number, stock) in (1..).zip(&stocks) {
            add(&space, number, number * 10, stock)?;
        }
        assert_eq!(space.remove_allocator(20)?.handed_to, None);
        assert_eq!(space.remove_allocator(10)?.handed_to, Some(3));
        assert_eq!(alloc(&space, SetId::ROOT), Ok(300));
        space.free(any(300))?;
        // It is added again as the last one of the list.
        add(&space, 1, 10, &stocks[0])?;
        assert_eq!(alloc(&space, SetId::ROOT), Ok(300));
        space.free(any(300))?;
        assert_eq!(space.remove_allocator(30)?.handed_to, Some(4));
        assert_eq!(alloc(&space, SetId::ROOT), Ok(100));
        space.free(any(100))?;
        assert_eq!(
            space.remove_allocator(10)?.handed_to,
            Some(DEFAULT_ALLOCATOR)
        );
        assert_eq!(alloc(&space, SetId::ROOT), Ok(1));
        assert_eq!(space.orphans(), 0);
        Ok(())
    }

    #[test]
    fn orphans_are_counted_until_they_are_freed() -> Result {
        let space = space(1000)?;
        let (one, two) = (Stock::new(100)?, Stock::new(200)?);
        add(&space, 1, 10, &one)?;
        add(&space, 2, 20, &two)?;
        let (a, b) = (alloc(&space, SetId::ROOT)?, alloc(&space, SetId::ROOT)?);
        let kept = space.get(any(b))?;
        space.remove_allocator(10)?;
        assert_eq!(space.orphans(), 2);
        // They can still be found, and no allocator is notified when they are freed.
        assert_eq!(space.find(any(a), |_| ()), Ok(()));
        space.free(any(a))?;
        assert_eq!(space.free(any(a)), Err(ENOENT));
        space.free(any(b))?;
        assert_eq!(space.orphans(), 1);
        drop(kept);
        assert_eq!((space.orphans(), one.taken(), two.taken()), (0, 3, 0));
        Ok(())
    }

    #[test]
    fn the_own_space_is_used_beside_orphans() -> Result {
        let space = space(102)?;
        let stock = Stock::new(100)?;
        add(&space, 1, 10, &stock)?;
        let orphan = alloc(&space, SetId::ROOT)?;
        space.remove_allocator(10)?;
        let near = IdRange::new(100, 101)?;
        let id = space.alloc(near, 0, Gfp::Kernel)?;
        assert_eq!(id.id(), orphan + 1);
        assert_eq!(space.alloc(near, 0, Gfp::Kernel).err(), Some(ENOSPC));
        space.free(any(orphan))?;
        assert_eq!(space.alloc(near, 0, Gfp::Kernel)?.id(), orphan);
        drop(id);
        assert_eq!(space.own_ids(), 0);
        assert_eq!(add(&space, 1, 10, &stock), Ok(()));
        Ok(())
    }

    #[test]
    fn the_number_of_an_orphan_is_refused() -> Result {
        let space = space(1000)?;
        let (one, two) = (Stock::new(100)?, Stock::new(100)?);
        add(&space, 1, 10, &one)?;
        add(&space, 2, 20, &two)?;
        let orphan = alloc(&space, SetId::ROOT)?;
        space.remove_allocator(10)?;
        // The next allocator considers this number free. It gets the number back.
        assert_eq!(alloc(&space, SetId::ROOT), Err(EBUSY));
        assert_eq!(two.taken(), 0);
        space.free(any(orphan))?;
        assert_eq!(alloc(&space, SetId::ROOT), Ok(orphan));
        assert_eq!(two.taken(), 1);
        Ok(())
    }

    #[test]
    fn an_id_in_use_is_refused() -> Result {
        let space = space(1000)?;
        let set = space.new_set(Token::None, Quota::Exactly(2))?;
        let stock = add_faulty(&space, 10, Fault::Return(7))?;
        let id = set.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        // Returning the second one would free the id of the user of the first one.
        let second = set.alloc(IdRange::ALL, 0, Gfp::Kernel);
        assert_eq!(second.err(), Some(EIO));
        assert_eq!((id.id(), set.used(), stock.taken()), (7, Ok(1), 0));
        Ok(())
    }

    /// The destructor of an allocator may wait for threads that register allocators.
    #[test]
    fn an_allocator_is_dropped_without_locks() -> Result {
        struct Dropped(Arc<Space>, Arc<Atomic<bool>>);
        impl Allocator for Dropped {
            fn alloc(&self, _range: IdRange, _gfp: Gfp) -> Result<u32> {
                Err(ENOSPC)
            }
            fn free(&self, _id: u32) {}
        }
        impl Drop for Dropped {
            fn drop(&mut self) {
                self.1.store(self.0.setup.try_lock().is_some(), Relaxed);
            }
        }
        let space = space(1000)?;
        let unlocked = Arc::new(Atomic::new(false), GFP_KERNEL)?;
        let stock = Stock::new(100)?;
        add(&space, 1, 10, &stock)?;
        let refused = Dropped(space.clone(), unlocked.clone());
        let refused = Arc::new(refused, GFP_KERNEL)?;
        assert_eq!(space.add_allocator(kind(2), 10, refused), Err(EEXIST));
        assert!(unlocked.load(Relaxed));
        Ok(())
    }

    #[test]
    fn an_id_in_use_outside_the_range_is_refused() -> Result {
        let space = space(1000)?;
        let stock = Stock::new(0)?;
        add(&space, 1, 10, &stock)?;
        let range = IdRange::new(7, 7)?;
        let id = space.alloc(range, 0, Gfp::Kernel)?;
        let faulty = FakeAllocator::new(&stock, Fault::Return(7))?;
        space.add_allocator(kind(1), 11, faulty)?;
        space.remove_allocator(10)?;
        let second = space.alloc(IdRange::new(8, 9)?, 0, Gfp::Kernel);
        assert_eq!(second.err(), Some(EIO));
        // The first one still has the id.
        assert_eq!(stock.taken(), 1 << id.id());
        drop(id);
        assert_eq!(stock.taken(), 0);
        Ok(())
    }

    #[test]
    fn an_id_outside_the_range_is_refused() -> Result {
        let space = space(1000)?;
        let set = space.new_set(Token::None, Quota::Exactly(2))?;
        add_faulty(&space, 10, Fault::Return(7))?;
        for range in [IdRange::new(8, 9)?, IdRange::new(1, 6)?] {
            let result = set.alloc(range, 0, Gfp::Kernel);
            assert_eq!(result.err(), Some(EIO));
        }
        assert_eq!(set.used(), Ok(0));
        Ok(())
    }

    #[test]
    fn the_error_of_an_allocator_is_returned() -> Result {
        let space = space(1000)?;
        let set = space.new_set(Token::None, Quota::Exactly(1))?;
        add_faulty(&space, 10, Fault::Fail)?;
        for _ in 0..3 {
            let result = set.alloc(IdRange::ALL, 0, Gfp::Kernel);
            assert_eq!(result.err(), Some(ENODEV));
        }
        assert_eq!(set.used(), Ok(0));
        Ok(())
    }

    #[test]
    fn quotas_apply_to_custom_allocators() -> Result {
        let space = space(1000)?;
        let set = space.new_set(Token::None, Quota::Exactly(1))?;
        let stock = Stock::new(100)?;
        add(&space, 1, 10, &stock)?;
        let _id = set.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        let result = set.alloc(IdRange::ALL, 0, Gfp::Kernel);
        assert_eq!((result.err(), stock.taken()), (Some(edquot()), 1));
        Ok(())
    }

    #[test]
    fn rust_allocators_of_one_type_share_ids() -> Result {
        struct Other(Arc<FakeAllocator>);
        impl Allocator for Other {
            fn alloc(&self, range: IdRange, gfp: Gfp) -> Result<u32> {
                self.0.alloc(range, gfp)
            }
            fn free(&self, id: u32) {
                self.0.free(id);
            }
        }
        let space = space(1000)?;
        let (one, two) = (Stock::new(100)?, Stock::new(200)?);
        let fake = FakeAllocator::new(&one, Fault::None)?;
        let first = space.register_allocator(fake.clone())?;
        assert_eq!(space.register_allocator(fake).err(), Some(EEXIST));
        let other = Other(FakeAllocator::new(&two, Fault::None)?);
        let _other = space.register_allocator(Arc::new(other, GFP_KERNEL)?)?;
        let _sharer = space.register_allocator(FakeAllocator::new(&one, Fault::None)?)?;
        let id = alloc(&space, SetId::ROOT)?;
        drop(first);
        space.free(any(id))?;
        assert_eq!((one.taken(), space.orphans()), (0, 0));
        Ok(())
    }

    #[test]
    fn unregistering_waits_for_calls_in_progress() -> Result {
        let space = space(1000)?;
        let pause = Pause::new()?;
        let removed = Arc::pin_init(Completion::new(), GFP_KERNEL)?;
        let slow = FakeAllocator::new(&Stock::new(5)?, Fault::Pause(pause.clone()))?;
        space.add_allocator(kind(1), 10, slow)?;

        let caller = space.clone();
        workqueue::system_unbound().try_spawn(GFP_KERNEL, move || {
            assert_eq!(alloc(&caller, SetId::ROOT), Ok(5));
        })?;
        pause.entered.wait_for_completion();
        let (remover, done) = (space.clone(), removed.clone());
        workqueue::system_unbound().try_spawn(GFP_KERNEL, move || {
            assert!(remover.remove_allocator(10).is_ok());
            done.complete_all();
        })?;
        // New ids no longer come from it, but its call is still running.
        while space.allocators.read().is_some() {
            fsleep(Delta::from_millis(1));
        }
        fsleep(Delta::from_millis(50));
        assert_eq!(space.orphans(), 0);
        pause.go_on.complete_all();
        removed.wait_for_completion();
        // The id of the call exists now, and is an orphan.
        assert_eq!(space.orphans(), 1);
        assert_eq!(space.state(any(5)), Ok(IdState::Idle));
        assert_eq!(alloc(&space, SetId::ROOT), Ok(1));
        Ok(())
    }
}
