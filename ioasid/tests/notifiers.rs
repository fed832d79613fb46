// SPDX-License-Identifier: GPL-2.0

//! The rules for notifiers: which of them are called, and in which order.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

use super::{
    alloc,
    any,
    on_event,
    space,
    OnEvent, //
};
use crate::{
    gfp::Gfp,
    id::{
        range::IdRange,
        state::IdState, //
    },
    notifier::{
        priority,
        Event,
        NotifierArgs,
        NotifyFlags,
        Scope, //
    },
    set::{
        Quota,
        SetId,
        Token, //
    },
    space::Space, //
};

/// The recorded events in order: the notifier, the event and the id.
type Log = Mutex<KVec<(u32, Event, u32)>>;

fn new_log() -> Result<Arc<Log>> {
    Arc::pin_init(new_mutex!(KVec::new()), GFP_KERNEL)
}

/// Returns the events since the last call.
fn take(log: &Log) -> KVec<(u32, Event, u32)> {
    core::mem::take(&mut *log.lock())
}

const ALL: Scope = Scope::All;

/// Registers a notifier that records its events.
fn record(space: &Space, log: &Arc<Log>, scope: Scope, priority: i32, name: u32) -> Result {
    let log = log.clone();
    on_event(space, scope, priority, name as usize, move |event, args| {
        let recorded = log.lock().push((name, event, args.id), GFP_KERNEL);
        assert!(recorded.is_ok());
    })
}

#[kunit_tests(ioasid_notifiers)]
mod tests {
    use super::*;

    #[test]
    fn each_change_of_state_is_notified_once() -> Result {
        let space = space(100)?;
        let log = new_log()?;
        record(&space, &log, ALL, priority::CPU, 1)?;
        let id = space.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        let number = id.id();
        id.bind()?;
        assert_eq!(id.bind(), Err(EBUSY));
        id.unbind()?;
        let reference = id.get()?;
        drop(id);
        space.free(any(number))?;
        drop(reference);
        let expected = [Event::Alloc, Event::Bind, Event::Unbind, Event::Free];
        assert!(take(&log).iter().eq(&expected.map(|e| (1, e, number))));
        Ok(())
    }

    #[test]
    fn the_last_put_notifies_of_the_free() -> Result {
        let space = space(100)?;
        let log = new_log()?;
        record(&space, &log, ALL, priority::CPU, 1)?;
        let id = alloc(&space, SetId::ROOT)?;
        assert_eq!(space.put(any(id)), Ok(true));
        let expected = [(1, Event::Alloc, id), (1, Event::Free, id)];
        assert_eq!(take(&log)[..], expected[..]);
        Ok(())
    }

    #[test]
    fn an_id_cannot_be_freed_before_its_allocation_was_notified() -> Result {
        let space = space(100)?;
        let log = new_log()?;
        let theirs = space.clone();
        on_event(&space, ALL, priority::CPU, 1, move |event, args| {
            if event == Event::Alloc {
                assert_eq!(theirs.free(any(args.id)), Err(EPERM));
            }
        })?;
        record(&space, &log, ALL, priority::DEVICE, 2)?;
        let id = alloc(&space, SetId::ROOT)?;
        let freed = space.free(any(id));
        space.notifiers.unregister(ALL, 1)?;
        assert_eq!(freed, Ok(()));
        let expected = [(2, Event::Alloc, id), (2, Event::Free, id)];
        assert_eq!(take(&log)[..], expected[..]);
        Ok(())
    }

    #[test]
    fn the_highest_priority_is_called_first() -> Result {
        let space = space(100)?;
        let log = new_log()?;
        for (priority, name) in [
            (priority::DEVICE, 3),
            (priority::LAST, 5),
            (priority::CPU, 1),
            (priority::IOMMU, 2),
            (priority::DEVICE, 4),
        ] {
            record(&space, &log, ALL, priority, name)?;
        }
        let id = alloc(&space, SetId::ROOT)?;
        let expected = [1, 2, 3, 4, 5].map(|name| (name, Event::Alloc, id));
        assert_eq!(take(&log)[..], expected[..]);
        Ok(())
    }

    #[test]
    fn notifiers_are_called_for_their_set_and_token() -> Result {
        let space = space(100)?;
        let log = new_log()?;
        // The process has no set yet.
        record(&space, &log, Scope::Token(Token::Mm(0x1000)), 0, 3)?;
        let set = space.new_set(Token::Mm(0x1000), Quota::Exactly(5))?;
        let other = space.new_set(Token::Mm(0x2000), Quota::Exactly(5))?;
        record(&space, &log, Scope::Set(set.id()), 0, 2)?;
        record(&space, &log, Scope::Set(SetId::ROOT), 0, 4)?;
        record(&space, &log, ALL, 0, 1)?;
        let heard = |set| -> Result<KVec<u32>> {
            alloc(&space, set)?;
            let mut names = KVec::new();
            for (name, ..) in &take(&log) {
                names.push(*name, GFP_KERNEL)?;
            }
            Ok(names)
        };
        assert_eq!(heard(set.id())?[..], [1, 2, 3]);
        assert_eq!(heard(other.id())?[..], [1]);
        assert_eq!(heard(SetId::ROOT)?[..], [1, 4]);
        Ok(())
    }

    #[test]
    fn the_flags_of_notify_select_the_notifiers() -> Result {
        let space = space(100)?;
        let log = new_log()?;
        let set = space.new_set(Token::None, Quota::Exactly(5))?;
        let id = set.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        record(&space, &log, ALL, 0, 1)?;
        record(&space, &log, Scope::Set(set.id()), 0, 2)?;
        let notify = |event, flags| {
            let audience = NotifyFlags::from_raw(flags)?;
            space.notify(any(id.id()), event, audience)
        };
        notify(Event::Bind, 1)?;
        notify(Event::Unbind, 2)?;
        let expected = [(1, Event::Bind, id.id()), (2, Event::Unbind, id.id())];
        assert_eq!(take(&log)[..], expected[..]);
        for bad in [0, 4, 7] {
            assert_eq!(notify(Event::Bind, bad), Err(EINVAL));
        }
        assert_eq!(id.state(), Ok(IdState::Idle));
        Ok(())
    }

    #[test]
    fn a_notifier_is_registered_once_per_scope() -> Result {
        let space = space(100)?;
        let log = new_log()?;
        record(&space, &log, ALL, 0, 1)?;
        assert_eq!(record(&space, &log, ALL, 3, 1), Err(EEXIST));
        assert_eq!(record(&space, &log, Scope::Set(SetId::ROOT), 0, 1), Ok(()));
        assert_eq!(space.notifiers.unregister(ALL, 2), Err(ENOENT));
        assert_eq!(space.notifiers.unregister(ALL, 1), Ok(()));
        assert_eq!(space.notifiers.unregister(ALL, 1), Err(ENOENT));
        alloc(&space, SetId::ROOT)?;
        assert_eq!(take(&log).len(), 1);
        assert_eq!(
            space.notifiers.unregister(Scope::Set(SetId::ROOT), 1),
            Ok(())
        );
        alloc(&space, SetId::ROOT)?;
        assert!(take(&log).is_empty());
        Ok(())
    }

    #[test]
    fn a_notifier_may_call_the_allocator() -> Result {
        let space = space(100)?;
        let theirs = space.clone();
        on_event(&space, ALL, 0, 1, move |event, args| {
            let key = any(args.id);
            let result = match event {
                Event::Bind => theirs.get(key).map(|reference| _ = reference.into_id()),
                Event::Free => theirs.put(key).map(drop),
                _ => Ok(()),
            };
            assert_eq!(result, Ok(()));
        })?;
        let id = space.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        id.bind()?;
        let number = id.id();
        drop(id);
        assert_eq!(space.state(any(number)), Err(ENOENT));
        space.notifiers.unregister(ALL, 1)
    }

    #[test]
    fn a_registration_ends_when_it_is_dropped() -> Result {
        let space = space(100)?;
        let log = new_log()?;
        let theirs = log.clone();
        let notifier = OnEvent(move |event, args: &NotifierArgs| {
            let recorded = theirs.lock().push((1, event, args.id), GFP_KERNEL);
            assert!(recorded.is_ok());
        });
        let notifier = Arc::new(notifier, GFP_KERNEL)?;
        let set = space.new_set(Token::None, Quota::Exactly(1))?;
        let (scope, cpu) = (Scope::Set(set.id()), priority::CPU);
        let registration = space.register_notifier(scope, cpu, notifier.clone())?;
        let again = space.register_notifier(scope, cpu, notifier.clone());
        assert_eq!(again.err(), Some(EEXIST));
        let root = space.register_notifier(Scope::Set(SetId::ROOT), cpu, notifier.clone())?;
        let id = set.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        let expected = [(1, Event::Alloc, id.id())];
        assert_eq!(take(&log)[..], expected[..]);
        drop(root);
        // The set exists as long as its notifier.
        drop(set);
        drop(registration);
        drop(id);
        assert!(take(&log).is_empty());
        assert!(space.is_unused());
        let late = space.register_notifier(scope, cpu, notifier);
        assert_eq!(late.err(), Some(EINVAL));
        Ok(())
    }
}
