// SPDX-License-Identifier: GPL-2.0

//! Notification of listeners when ids are allocated, freed, bound and unbound.

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

/// An event of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Event {
    /// The id was allocated.
    Alloc = 1,
    /// The id was freed: its users must stop using it and drop their references.
    Free = 2,
    /// The id was bound.
    Bind = 3,
    /// The id was unbound.
    Unbind = 4,
}

/// The order in which the listeners to the same ids are called: the highest priority first.
pub mod priority {
    /// Called after all others.
    pub const LAST: i32 = 0;
    /// Device drivers.
    pub const DEVICE: i32 = 1;
    /// The IOMMU driver.
    pub const IOMMU: i32 = 2;
    /// Code that makes the CPU use ids, for example a hypervisor with a translation table for its
    /// guest.
    pub const CPU: i32 = 3;
}

/// The id that an event is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// The id. It is not reused during the call.
    pub id: u32,
    /// The number that the id's set uses for it.
    pub spid: Option<u32>,
    /// The id's set; [`SetId::ROOT`] for ids in no set.
    pub set: SetId,
    /// The id's private data.
    pub data: usize,
}

/// A listener to events of ids.
///
/// Called without locks, in the context of the caller that caused the event. It must not sleep
/// unless all of these callers may sleep. It may use the allocator, but must not add or remove
/// listeners: that would deadlock.
pub trait Notify: Send + Sync {
    /// Handles `event` of `subject`.
    fn notify(&self, event: Event, subject: &Subject);
}

/// The ids that a listener is interested in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// All ids.
    All,
    /// The ids in this set; [`SetId::ROOT`] for ids in no set.
    Set(SetId),
    /// The ids in the set with this token, which need not exist yet.
    Owner(Token),
}

/// The listeners that are notified of an event.
#[derive(Clone, Copy)]
pub(crate) struct Audience {
    /// The listeners with [`Scope::All`].
    pub(crate) all: bool,
    /// The listeners to the id's set or to its owner.
    pub(crate) set: bool,
}

impl Audience {
    pub(crate) const EVERYBODY: Self = Self {
        all: true,
        set: true,
    };

    /// Returns the audience for the flags of `ioasid_notify()`, or `None` if flags are unknown or
    /// none is set.
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
    /// Identifies the listener.
    key: usize,
    target: Arc<dyn Notify>,
}

impl Listener {
    /// Orders listeners by scope and then by descending priority. Equal listeners are in the order
    /// of registration.
    fn order(&self) -> (Scope, Reverse<i32>) {
        (self.scope, Reverse(self.priority))
    }
}

/// All listeners, in order.
pub(crate) type Listeners = Roster<Listener>;

impl Listeners {
    /// Adds a listener to the ids in `scope`. Sleeps.
    ///
    /// # Errors
    ///
    /// `EEXIST` if the scope already has a listener with this key; `ENOMEM`.
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

    /// Removes a listener, and waits until it is no longer running. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such listener.
    pub(crate) fn unregister(&self, scope: Scope, key: usize) -> Result {
        self.remove(|l| l.scope == scope && l.key == key).map(drop)
    }

    /// Notifies the listeners: first those to all ids, then those to the set, then those to its
    /// owner.
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

/// Returns the part of the list for `scope`.
fn of(list: &[Listener], scope: Scope) -> &[Listener] {
    let start = list.partition_point(|l| l.scope < scope);
    let end = list.partition_point(|l| l.scope <= scope);
    &list[start..end]
}
