// SPDX-License-Identifier: GPL-2.0

//! Who is told when ids come, go, and are put to use.

use core::cmp::Reverse;

use kernel::{
    prelude::*,
    sync::Arc, //
};

use crate::{
    roster::Roster,
    set::Token,
    set_id::SetId, //
};

/// What happened to an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Event {
    /// It was allocated.
    Alloc = 1,
    /// It was freed: who uses it is to stop, and to drop its references.
    Free = 2,
    /// It was bound to something.
    Bind = 3,
    /// It is not bound any more.
    Unbind = 4,
}

/// When a listener is called, compared with others for the same ids: the highest first.
pub mod priority {
    /// After all others.
    pub const LAST: i32 = 0;
    /// Drivers of devices.
    pub const DEVICE: i32 = 1;
    /// The IOMMU's driver.
    pub const IOMMU: i32 = 2;
    /// Who has the processor use ids, such as a hypervisor with a table for its guest.
    pub const CPU: i32 = 3;
}

/// The id that something happened to.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// The id. During the call it is not reused.
    pub id: u32,
    /// What its set calls it.
    pub spid: Option<u32>,
    /// Its set; [`SetId::ROOT`] for ids in no set.
    pub set: SetId,
    /// Its private data.
    pub data: usize,
}

/// Somebody who is told what happens to ids.
///
/// Called without a lock, in the context of who caused the event: it must not sleep unless all of them
/// may. It may use the allocator, but must not add or remove listeners, which wait for it.
pub trait Notify: Send + Sync {
    /// `event` happened to `subject`.
    fn notify(&self, event: Event, subject: &Subject);
}

/// Which ids somebody listens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// All of them.
    All,
    /// Those of this set; [`SetId::ROOT`] for those in no set.
    Set(SetId),
    /// Those of the set with this token, now or later.
    Owner(Token),
}

/// Which of the listeners are told of an event.
#[derive(Clone, Copy)]
pub(crate) struct Audience {
    /// Those of [`Scope::All`].
    pub(crate) all: bool,
    /// Those of the id's set.
    pub(crate) set: bool,
}

impl Audience {
    pub(crate) const EVERYBODY: Self = Self {
        all: true,
        set: true,
    };

    /// The audience that the flags of `ioasid_notify()` say; `None` for unknown flags, or nobody.
    pub(crate) fn from_flags(flags: u32) -> Option<Self> {
        let (all, set) = (flags & 1 != 0, flags & 2 != 0);
        (flags & !3 == 0 && flags != 0).then_some(Self { all, set })
    }
}

/// A listener.
#[derive(Clone)]
pub(crate) struct Listener {
    scope: Scope,
    priority: i32,
    /// Tells listeners apart.
    key: usize,
    target: Arc<dyn Notify>,
}

impl Listener {
    /// By scope, then the highest priority first; equal ones in the order of their registration.
    fn order(&self) -> (Scope, Reverse<i32>) {
        (self.scope, Reverse(self.priority))
    }
}

/// All listeners, in order.
pub(crate) type Listeners = Roster<Listener>;

impl Listeners {
    /// Calls `target` for the ids in `scope`. Sleeps.
    ///
    /// # Errors
    ///
    /// `EEXIST` if there is a listener with this key for the same ids; `ENOMEM`.
    pub(crate) fn register(
        &self,
        scope: Scope,
        priority: i32,
        key: usize,
        target: Arc<dyn Notify>,
    ) -> Result {
        let new = Listener {
            scope,
            priority,
            key,
            target,
        };
        self.add(|list| {
            if of(list, scope).iter().any(|l| l.key == key) {
                return Err(EEXIST);
            }
            let at = list.partition_point(|l| l.order() <= new.order());
            Ok((at, new))
        })
    }

    /// Ends what [`register`](Self::register) began, and waits until the listener doesn't run. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such listener.
    pub(crate) fn unregister(&self, scope: Scope, key: usize) -> Result {
        self.remove(|l| l.scope == scope && l.key == key).map(drop)
    }

    /// Tells the listeners: first those to all ids, then those to the set, then those to its owner.
    pub(crate) fn tell(&self, audience: Audience, event: Event, owner: Token, subject: &Subject) {
        let Some(list) = self.read() else {
            return;
        };
        let all = audience.all.then_some(Scope::All);
        let set = audience.set.then_some(Scope::Set(subject.set));
        let owner = (audience.set && owner != Token::None).then_some(Scope::Owner(owner));
        for scope in [all, set, owner].into_iter().flatten() {
            for listener in of(&list, scope) {
                listener.target.notify(event, subject);
            }
        }
    }
}

/// The part of the list for `scope`.
fn of(list: &[Listener], scope: Scope) -> &[Listener] {
    let start = list.partition_point(|l| l.scope < scope);
    let end = list.partition_point(|l| l.scope <= scope);
    &list[start..end]
}
