// SPDX-License-Identifier: GPL-2.0

//! The rules of ids, sets, SPIDs, listeners and capacities, each with its errors.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};

use kernel_ext::gfp::Gfp;

use super::space;
use crate::{
    account::edquot,
    life::State,
    notify::{
        priority,
        Audience,
        Event,
        Notify,
        Scope,
        Subject, //
    },
    range::{
        IdRange,
        INVALID, //
    },
    set::{
        Quota,
        Token, //
    },
    space::Space, //
};

/// Writes down what it is told.
#[pin_data]
struct Recorder {
    name: u32,
    #[pin]
    log: Arc<Log>,
}

/// What was told, in order: to whom, what, and of which id.
#[pin_data]
struct Log {
    #[pin]
    entries: Mutex<KVec<(u32, Event, u32)>>,
}

impl Log {
    fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self { entries <- new_mutex!(KVec::new()) }),
            GFP_KERNEL,
        )
    }

    fn recorder(self: &Arc<Self>, name: u32) -> Result<Arc<Recorder>> {
        let log = self.clone();
        Ok(Arc::new(Recorder { name, log }, GFP_KERNEL)?)
    }

    /// What was told since the last time.
    fn take(&self) -> KVec<(u32, Event, u32)> {
        core::mem::take(&mut *self.entries.lock())
    }
}

impl Notify for Recorder {
    fn notify(&self, event: Event, subject: &Subject) {
        let entry = (self.name, event, subject.id);
        let _ = self.log.entries.lock().push(entry, GFP_KERNEL);
    }
}

fn alloc(space: &Space, set: u32) -> Result<u32> {
    space.alloc_in(set, IdRange::ALL, 0, Gfp::Kernel)
}

#[kunit_tests(ioasid_ids)]
mod ids {
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

#[kunit_tests(ioasid_sets)]
mod sets {
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

#[kunit_tests(ioasid_spids)]
mod spids {
    use super::*;

    #[test]
    fn there_and_back() -> Result {
        let space = space(100)?;
        let set = space.new_set(Token::None, Quota::Exactly(3))?;
        let id = set.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        assert_eq!(set.find_by_spid(5).err(), Some(ENOENT));
        assert_eq!(id.attach_spid(5), Ok(()));
        assert_eq!(set.find_by_spid(5)?.id(), id.id());
        id.detach_spid();
        assert_eq!(set.find_by_spid(5).err(), Some(ENOENT));
        assert_eq!(id.attach_spid(0), Ok(()));
        assert_eq!(set.find_by_spid(0)?.id(), id.id());
        Ok(())
    }

    #[test]
    fn one_each() -> Result {
        let space = space(100)?;
        let set = space.new_set(Token::None, Quota::Exactly(3))?;
        let one = set.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        let two = set.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        assert_eq!(one.attach_spid(5), Ok(()));
        assert_eq!(one.attach_spid(6), Err(EBUSY));
        assert_eq!(two.attach_spid(5), Err(EINVAL));
        assert_eq!(two.attach_spid(6), Ok(()));
        assert_eq!(two.attach_spid(INVALID), Err(EINVAL));
        assert_eq!(space.attach_spid(99, 7), Err(ENOENT));
        assert_eq!(space.detach_spid(99), Err(ENOENT));
        Ok(())
    }

    #[test]
    fn sets_have_their_own() -> Result {
        let space = space(100)?;
        let set = space.new_set(Token::None, Quota::Exactly(3))?;
        let other = space.new_set(Token::None, Quota::Exactly(3))?;
        let ours = set.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        let theirs = other.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        assert_eq!(ours.attach_spid(5), Ok(()));
        assert_eq!(other.find_by_spid(5).err(), Some(ENOENT));
        assert_eq!(theirs.attach_spid(5), Ok(()));
        assert_eq!(set.find_by_spid(5)?.id(), ours.id());
        assert_eq!(other.find_by_spid(5)?.id(), theirs.id());
        assert_eq!(space.get_by_spid(77, 5).err(), Some(EINVAL));
        Ok(())
    }

    #[test]
    fn gone_with_the_id() -> Result {
        let space = space(100)?;
        let set = space.new_set(Token::None, Quota::Exactly(3))?;
        let id = set.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        id.attach_spid(5)?;
        let reference = id.get()?;
        drop(id);
        // It is freed, so nobody gets it; but the name is in use until the number is free.
        assert_eq!(set.find_by_spid(5).err(), Some(EBUSY));
        assert_eq!(space.by_spid(set.number(), 5), Ok(reference.id()));
        drop(reference);
        assert_eq!(set.find_by_spid(5).err(), Some(ENOENT));
        let next = set.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        assert_eq!(next.attach_spid(5), Ok(()));
        Ok(())
    }
}

#[kunit_tests(ioasid_listeners)]
mod listeners {
    use super::*;

    const ALL: Scope = Scope::All;

    fn listen(space: &Space, log: &Arc<Log>, scope: Scope, priority: i32, name: u32) -> Result {
        let recorder = log.recorder(name)?;
        let listeners = space.listeners();
        listeners.register(scope, priority, name as usize, recorder)
    }

    #[test]
    fn each_transition_once() -> Result {
        let space = space(100)?;
        let log = Log::new()?;
        listen(&space, &log, ALL, priority::CPU, 1)?;
        let id = space.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        let number = id.id();
        id.bind()?;
        assert_eq!(id.bind(), Err(EBUSY));
        id.unbind()?;
        let reference = id.get()?;
        drop(id);
        space.free(None, number)?;
        drop(reference);
        let expected = [Event::Alloc, Event::Bind, Event::Unbind, Event::Free];
        assert!(log.take().iter().eq(&expected.map(|e| (1, e, number))));
        Ok(())
    }

    #[test]
    fn the_last_put_tells_too() -> Result {
        let space = space(100)?;
        let log = Log::new()?;
        listen(&space, &log, ALL, priority::CPU, 1)?;
        let id = alloc(&space, 0)?;
        assert_eq!(space.put(None, id), Ok(true));
        let expected = [(1, Event::Alloc, id), (1, Event::Free, id)];
        assert_eq!(log.take()[..], expected[..]);
        Ok(())
    }

    #[test]
    fn highest_priority_first() -> Result {
        let space = space(100)?;
        let log = Log::new()?;
        for (priority, name) in [
            (priority::DEVICE, 3),
            (priority::LAST, 5),
            (priority::CPU, 1),
            (priority::IOMMU, 2),
            (priority::DEVICE, 4),
        ] {
            listen(&space, &log, ALL, priority, name)?;
        }
        let id = alloc(&space, 0)?;
        let expected = [1, 2, 3, 4, 5].map(|name| (name, Event::Alloc, id));
        assert_eq!(log.take()[..], expected[..]);
        Ok(())
    }

    #[test]
    fn of_sets_and_owners() -> Result {
        let space = space(100)?;
        let log = Log::new()?;
        // Before the process has a set.
        listen(&space, &log, Scope::Owner(Token::Mm(0x1000)), 0, 3)?;
        let set = space.new_set(Token::Mm(0x1000), Quota::Exactly(5))?;
        let other = space.new_set(Token::Mm(0x2000), Quota::Exactly(5))?;
        listen(&space, &log, Scope::Set(set.number()), 0, 2)?;
        listen(&space, &log, Scope::Set(0), 0, 4)?;
        listen(&space, &log, ALL, 0, 1)?;
        let heard = |set| -> Result<KVec<u32>> {
            alloc(&space, set)?;
            let mut names = KVec::new();
            for (name, ..) in &log.take() {
                names.push(*name, GFP_KERNEL)?;
            }
            Ok(names)
        };
        assert_eq!(heard(set.number())?[..], [1, 2, 3]);
        assert_eq!(heard(other.number())?[..], [1]);
        assert_eq!(heard(0)?[..], [1, 4]);
        Ok(())
    }

    #[test]
    fn audiences() -> Result {
        let space = space(100)?;
        let log = Log::new()?;
        let set = space.new_set(Token::None, Quota::Exactly(5))?;
        let id = set.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        listen(&space, &log, ALL, 0, 1)?;
        listen(&space, &log, Scope::Set(set.number()), 0, 2)?;
        let notify = |event, flags| {
            let audience = Audience::from_flags(flags).ok_or(EINVAL)?;
            space.notify(id.id(), event, audience)
        };
        notify(Event::Bind, 1)?;
        notify(Event::Unbind, 2)?;
        let expected = [(1, Event::Bind, id.id()), (2, Event::Unbind, id.id())];
        assert_eq!(log.take()[..], expected[..]);
        for bad in [0, 4, 7] {
            assert_eq!(notify(Event::Bind, bad), Err(EINVAL));
        }
        assert_eq!(id.state(), State::Idle);
        Ok(())
    }

    #[test]
    fn registered_once() -> Result {
        let space = space(100)?;
        let log = Log::new()?;
        listen(&space, &log, ALL, 0, 1)?;
        assert_eq!(listen(&space, &log, ALL, 3, 1), Err(EEXIST));
        assert_eq!(listen(&space, &log, Scope::Set(0), 0, 1), Ok(()));
        assert_eq!(space.listeners().unregister(ALL, 2), Err(ENOENT));
        assert_eq!(space.listeners().unregister(ALL, 1), Ok(()));
        assert_eq!(space.listeners().unregister(ALL, 1), Err(ENOENT));
        alloc(&space, 0)?;
        assert_eq!(log.take().len(), 1);
        assert_eq!(space.listeners().unregister(Scope::Set(0), 1), Ok(()));
        alloc(&space, 0)?;
        assert!(log.take().is_empty());
        Ok(())
    }

    /// Drops its reference when it is told that the id is freed, as a user of ids does.
    struct User(Arc<Space>);

    impl Notify for User {
        fn notify(&self, event: Event, subject: &Subject) {
            let result = match event {
                Event::Bind => self.0.get(None, subject.id).map(|reference| {
                    reference.into_id();
                }),
                Event::Free => self.0.put(None, subject.id).map(drop),
                _ => Ok(()),
            };
            assert_eq!(result, Ok(()));
        }
    }

    #[test]
    fn may_call_the_allocator() -> Result {
        let space = super::super::shared_space(100)?;
        let user = Arc::new(User(space.clone()), GFP_KERNEL)?;
        space.listeners().register(ALL, 0, 1, user)?;
        let id = space.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        id.bind()?;
        let number = id.id();
        drop(id);
        assert_eq!(space.state(number), Err(ENOENT));
        space.listeners().unregister(ALL, 1)
    }
}
