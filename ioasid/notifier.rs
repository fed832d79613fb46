// SPDX-License-Identifier: GPL-2.0

//! Notifiers, which are called when ids are allocated, freed, bound and unbound.

#[allow(unsafe_code)]
pub(crate) mod abi;

use core::cmp::Reverse;

use kernel::{
    prelude::*,
    sync::Arc, //
};

use crate::{
    id::key::Key,
    set::{
        Set,
        SetId,
        Token, //
    },
    space::Space,
    srcu_list::SrcuList,
    warn_failed, //
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

/// The order in which the notifiers of the same ids are called: the highest priority first.
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
pub struct NotifierArgs {
    /// The id. It is not reused during the call.
    pub id: u32,
    /// The number that the id's set uses for it.
    pub spid: Option<u32>,
    /// The id's set; [`SetId::ROOT`] for ids in no set.
    pub set: SetId,
    /// The id's private data.
    pub data: usize,
}

/// A callback for events of ids.
///
/// Called without locks, in the context of the caller that caused the event. It must not sleep
/// unless all of these callers may sleep. It may use the allocator, but must not register or
/// unregister notifiers: that would deadlock.
pub trait Notifier: Send + Sync {
    /// Handles `event` of the id in `args`.
    fn notify(&self, event: Event, args: &NotifierArgs);
}

/// The ids whose events a notifier is called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// All ids.
    All,
    /// The ids in this set; [`SetId::ROOT`] for ids in no set.
    Set(SetId),
    /// The ids in the set with this token, which need not exist yet.
    Token(Token),
}

/// The notifiers that are called for an event: the flags of `ioasid_notify()`.
#[derive(Clone, Copy)]
pub(crate) struct NotifyFlags {
    /// The notifiers with [`Scope::All`].
    pub(crate) all: bool,
    /// The notifiers of the id's set and of the set's token.
    pub(crate) set: bool,
}

impl NotifyFlags {
    pub(crate) const BOTH: Self = Self {
        all: true,
        set: true,
    };

    /// Returns the flags for those of `ioasid_notify()`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if some are unknown or none is set.
    pub(crate) fn from_raw(flags: u32) -> Result<Self> {
        if flags & !3 != 0 || flags == 0 {
            return Err(EINVAL);
        }
        Ok(Self {
            all: flags & 1 != 0,
            set: flags & 2 != 0,
        })
    }
}

/// A registered notifier.
#[derive(Clone)]
pub(crate) struct NotifierEntry {
    scope: Scope,
    priority: i32,
    /// Identifies the notifier.
    key: usize,
    notifier: Arc<dyn Notifier>,
}

impl NotifierEntry {
    /// Orders notifiers by scope and then by descending priority. Equal notifiers are in the order
    /// of registration.
    fn order(&self) -> (Scope, Reverse<i32>) {
        (self.scope, Reverse(self.priority))
    }
}

/// All notifiers, in order.
pub(crate) type NotifierChain = SrcuList<NotifierEntry>;

impl NotifierChain {
    /// Registers a notifier for the ids in `scope`. Sleeps.
    ///
    /// # Errors
    ///
    /// `EEXIST` if the scope already has a notifier with this key; `ENOMEM`.
    pub(crate) fn register(
        &self,
        scope: Scope,
        priority: i32,
        key: usize,
        notifier: Arc<dyn Notifier>,
    ) -> Result {
        // On error, the destructor of the notifier must run without the lock. The argument is dropped
        // after it is released.
        self.add(|list| {
            let new = NotifierEntry {
                scope,
                priority,
                key,
                notifier: notifier.clone(),
            };
            if of(list, scope).iter().any(|l| l.key == key) {
                return Err(EEXIST);
            }
            let at = list.partition_point(|l| l.order() <= new.order());
            Ok((at, new))
        })
    }

    /// Unregisters a notifier, and waits until it is no longer running. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such notifier.
    pub(crate) fn unregister(&self, scope: Scope, key: usize) -> Result {
        self.remove(|l| l.scope == scope && l.key == key).map(drop)
    }

    /// Calls the notifiers of all ids, then those of the id's set, then those of the set's token.
    fn call(&self, flags: NotifyFlags, event: Event, token: Token, args: &NotifierArgs) {
        let Some(list) = self.read() else {
            return;
        };
        let all = flags.all.then_some(Scope::All);
        let set = flags.set.then_some(Scope::Set(args.set));
        let token = (flags.set && token != Token::None).then_some(Scope::Token(token));
        for scope in [all, set, token].into_iter().flatten() {
            for entry in of(&list, scope) {
                entry.notifier.notify(event, args);
            }
        }
    }
}

/// Returns the part of the list for `scope`.
fn of(list: &[NotifierEntry], scope: Scope) -> &[NotifierEntry] {
    let start = list.partition_point(|l| l.scope < scope);
    let end = list.partition_point(|l| l.scope <= scope);
    &list[start..end]
}

/// A registered notifier. Dropping this unregisters it, and sleeps until it is no longer running.
pub struct NotifierRegistration<'s> {
    space: &'s Space,
    scope: Scope,
    key: usize,
    /// The set of the scope exists as long as it has a notifier.
    _set: Option<Set<'s>>,
}

impl Drop for NotifierRegistration<'_> {
    fn drop(&mut self) {
        if let Err(e) = self.space.notifiers.unregister(self.scope, self.key) {
            pr_err!("cannot unregister a notifier: {:?}\n", e);
        }
    }
}

impl Space {
    /// Registers a notifier for the ids in `scope`. [`priority`] has the priorities. Sleeps.
    ///
    /// # Errors
    ///
    /// `EEXIST` if the notifier is already registered for the scope; `EINVAL` if there is no such
    /// set, or if it is closed; `ENOMEM`.
    pub fn register_notifier<N: Notifier + 'static>(
        &self,
        scope: Scope,
        priority: i32,
        notifier: Arc<N>,
    ) -> Result<NotifierRegistration<'_>> {
        let set = match scope {
            Scope::All | Scope::Token(_) | Scope::Set(SetId::ROOT) => None,
            Scope::Set(set) => Some(self.get_set(set)?),
        };
        let key = Arc::as_ptr(&notifier).addr();
        self.notifiers.register(scope, priority, key, notifier)?;
        Ok(NotifierRegistration {
            space: self,
            scope,
            key,
            _set: set,
        })
    }

    /// Marks an id as in use.
    pub(crate) fn bind(&self, key: Key) -> Result {
        self.notify(key, Event::Bind, NotifyFlags::BOTH)
    }

    /// Marks an id as no longer in use.
    pub(crate) fn unbind(&self, key: Key) -> Result {
        self.notify(key, Event::Unbind, NotifyFlags::BOTH)
    }

    /// Binds or unbinds an id, and calls the notifiers that `flags` select.
    ///
    /// # Errors
    ///
    /// `EINVAL` for any other event, or if the id was not bound; `EBUSY` if it is already bound or
    /// has been freed; `ENOENT` if there is no such id; `EACCES` if it is not in the key's set;
    /// `EOVERFLOW` if there are too many references.
    pub(crate) fn notify(&self, key: Key, event: Event, flags: NotifyFlags) -> Result {
        let held = self.hold(key)?;
        self.with_id(held.key(), |found| match event {
            Event::Bind => found.lifetime.bind(),
            Event::Unbind => found.lifetime.unbind(),
            Event::Alloc | Event::Free => Err(EINVAL),
        })?;
        self.call_notifiers(held.key(), event, flags);
        Ok(())
    }

    /// Whether any notifier is registered.
    pub(crate) fn has_notifiers(&self) -> bool {
        self.notifiers.len() != 0
    }

    /// Calls notifiers for an event, without a lock and outside of RCU. The caller holds a
    /// reference, so the number is not reused meanwhile.
    ///
    /// Events that concurrent calls cause for one id are in no particular order.
    pub(crate) fn call_notifiers(&self, key: Key, event: Event, flags: NotifyFlags) {
        let args = self.with_id(key, |found| {
            let set = found.set();
            let args = NotifierArgs {
                id: key.id,
                spid: found.spid(),
                set,
                data: found.data()?,
            };
            Ok((args, self.with_set(set, |state| Ok(state.token))?))
        });
        match args {
            Ok((args, token)) => self.notifiers.call(flags, event, token, &args),
            Err(e) => warn_failed(fmt!("call the notifiers of id {}", key.id), e),
        }
    }
}
