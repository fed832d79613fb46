// SPDX-License-Identifier: GPL-2.0

//! The rules for listeners: which of them are notified, and in which order.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};

use kernel_ext::gfp::Gfp;

use super::{
    alloc,
    any,
    shared_space,
    space, //
};
use crate::{
    notify::{
        priority,
        Audience,
        Event,
        Notify,
        Scope,
        Subject, //
    },
    range::IdRange,
    set::{
        Quota,
        Token, //
    },
    set_id::SetId,
    space::Space,
    state::State, //
};

/// A listener that records its events.
#[pin_data]
struct Recorder {
    name: u32,
    #[pin]
    log: Arc<Log>,
}

/// The recorded events in order: the listener, the event and the id.
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

    /// Returns the events since the last call.
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

/// A user of an id, which drops its reference when it is notified that the id was freed.
struct User(Arc<Space>);

impl Notify for User {
    fn notify(&self, event: Event, subject: &Subject) {
        let result = match event {
            Event::Bind => self.0.get(any(subject.id)).map(|reference| {
                reference.into_id();
            }),
            Event::Free => self.0.put(any(subject.id)).map(drop),
            _ => Ok(()),
        };
        assert_eq!(result, Ok(()));
    }
}

/// A caller that frees each id by its number as soon as it was allocated.
struct Guesser(Arc<Space>);

impl Notify for Guesser {
    fn notify(&self, event: Event, subject: &Subject) {
        if event == Event::Alloc {
            // Whether it succeeds shows in the events that the others are told of.
            let _ = self.0.free(any(subject.id));
        }
    }
}

const ALL: Scope = Scope::All;

fn listen(space: &Space, log: &Arc<Log>, scope: Scope, priority: i32, name: u32) -> Result {
    let recorder = log.recorder(name)?;
    let listeners = space.listeners();
    listeners.register(scope, priority, name as usize, recorder)
}

#[kunit_tests(ioasid_listeners)]
mod tests {
    use super::*;

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
        space.free(any(number))?;
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
        let id = alloc(&space, SetId::ROOT)?;
        assert_eq!(space.put(any(id)), Ok(true));
        let expected = [(1, Event::Alloc, id), (1, Event::Free, id)];
        assert_eq!(log.take()[..], expected[..]);
        Ok(())
    }

    #[test]
    fn nobody_frees_before_all_know_of_the_allocation() -> Result {
        let space = shared_space(100)?;
        let log = Log::new()?;
        let guesser = Arc::new(Guesser(space.clone()), GFP_KERNEL)?;
        space.listeners().register(ALL, priority::CPU, 1, guesser)?;
        listen(&space, &log, ALL, priority::DEVICE, 2)?;
        let id = alloc(&space, SetId::ROOT)?;
        let freed = space.free(any(id));
        space.listeners().unregister(ALL, 1)?;
        assert_eq!(freed, Ok(()));
        let expected = [(2, Event::Alloc, id), (2, Event::Free, id)];
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
        let id = alloc(&space, SetId::ROOT)?;
        let expected = [1, 2, 3, 4, 5].map(|name| (name, Event::Alloc, id));
        assert_eq!(log.take()[..], expected[..]);
        Ok(())
    }

    #[test]
    fn of_sets_and_owners() -> Result {
        let space = space(100)?;
        let log = Log::new()?;
        // The process has no set yet.
        listen(&space, &log, Scope::Owner(Token::Mm(0x1000)), 0, 3)?;
        let set = space.new_set(Token::Mm(0x1000), Quota::Exactly(5))?;
        let other = space.new_set(Token::Mm(0x2000), Quota::Exactly(5))?;
        listen(&space, &log, Scope::Set(set.id()), 0, 2)?;
        listen(&space, &log, Scope::Set(SetId::ROOT), 0, 4)?;
        listen(&space, &log, ALL, 0, 1)?;
        let heard = |set| -> Result<KVec<u32>> {
            alloc(&space, set)?;
            let mut names = KVec::new();
            for (name, ..) in &log.take() {
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
    fn audiences() -> Result {
        let space = space(100)?;
        let log = Log::new()?;
        let set = space.new_set(Token::None, Quota::Exactly(5))?;
        let id = set.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        listen(&space, &log, ALL, 0, 1)?;
        listen(&space, &log, Scope::Set(set.id()), 0, 2)?;
        let notify = |event, flags| {
            let audience = Audience::from_flags(flags).ok_or(EINVAL)?;
            space.notify(any(id.id()), event, audience)
        };
        notify(Event::Bind, 1)?;
        notify(Event::Unbind, 2)?;
        let expected = [(1, Event::Bind, id.id()), (2, Event::Unbind, id.id())];
        assert_eq!(log.take()[..], expected[..]);
        for bad in [0, 4, 7] {
            assert_eq!(notify(Event::Bind, bad), Err(EINVAL));
        }
        assert_eq!(id.state(), Ok(State::Idle));
        Ok(())
    }

    #[test]
    fn registered_once() -> Result {
        let space = space(100)?;
        let log = Log::new()?;
        listen(&space, &log, ALL, 0, 1)?;
        assert_eq!(listen(&space, &log, ALL, 3, 1), Err(EEXIST));
        assert_eq!(listen(&space, &log, Scope::Set(SetId::ROOT), 0, 1), Ok(()));
        assert_eq!(space.listeners().unregister(ALL, 2), Err(ENOENT));
        assert_eq!(space.listeners().unregister(ALL, 1), Ok(()));
        assert_eq!(space.listeners().unregister(ALL, 1), Err(ENOENT));
        alloc(&space, SetId::ROOT)?;
        assert_eq!(log.take().len(), 1);
        assert_eq!(
            space.listeners().unregister(Scope::Set(SetId::ROOT), 1),
            Ok(())
        );
        alloc(&space, SetId::ROOT)?;
        assert!(log.take().is_empty());
        Ok(())
    }

    #[test]
    fn may_call_the_allocator() -> Result {
        let space = shared_space(100)?;
        let user = Arc::new(User(space.clone()), GFP_KERNEL)?;
        space.listeners().register(ALL, 0, 1, user)?;
        let id = space.alloc(IdRange::ALL, 0, Gfp::Kernel)?;
        id.bind()?;
        let number = id.id();
        drop(id);
        assert_eq!(space.state(any(number)), Err(ENOENT));
        space.listeners().unregister(ALL, 1)
    }
}
