// SPDX-License-Identifier: GPL-2.0

//! Allocating, finding, counting and freeing ids.

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Full,
            Release, //
        },
        rcu, //
    },
};

use kernel_ext::gfp::Gfp;

use super::Space;
use crate::{
    abi::trace,
    complain::complain,
    entry::{
        Found,
        Remains, //
    },
    key::{
        Key,
        Only, //
    },
    life::{
        Freed,
        Generation,
        Put,
        Right, //
    },
    notify::{
        Audience,
        Event,
        Subject, //
    },
    pasid::{
        Pasid,
        Reference, //
    },
    range::IdRange,
    set_id::SetId,
    source::OWN, //
};

/// The parameters of an allocation.
pub(super) struct Wanted {
    pub(super) set: SetId,
    pub(super) range: IdRange,
    pub(super) data: usize,
    pub(super) gfp: Gfp,
    pub(super) owner: Right,
}

impl Space {
    /// Allocates an id in `range` that is in no set.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if no id in the range is free; `EDQUOT` if all ids are reserved for sets; `ENOMEM`;
    /// the error of a custom allocator; `EIO` if a custom allocator returns an id that is outside of
    /// `range` or that its kind has in use; `EBUSY` if it returns an id of another source.
    pub fn alloc(&self, range: IdRange, data: usize, gfp: Gfp) -> Result<Pasid<'_>> {
        let key = self.alloc_in(SetId::ROOT, range, data, gfp, Right::Owner)?;
        Ok(Pasid::from_allocation(self, key))
    }

    /// Allocates an id in a set, for `owner`. Returns the key for freeing it.
    ///
    /// # Errors
    ///
    /// Those of [`alloc`](Self::alloc); `EINVAL` if there is no such set, or if it is closed.
    pub(crate) fn alloc_in(
        &self,
        set: SetId,
        range: IdRange,
        data: usize,
        gfp: Gfp,
        owner: Right,
    ) -> Result<Key> {
        self.with_set(set, |state| state.account.take(1))?;
        // Any caller can guess the number. If there are listeners, the id therefore belongs to this
        // call until they were notified, so that it cannot be freed before.
        let told = self.has_listeners();
        let wanted = Wanted {
            set,
            range,
            data,
            gfp,
            owner: if told { Right::Owner } else { owner },
        };
        let key = self
            .enter(&wanted)
            .inspect_err(|_| self.give_quota(set, 1))?;
        trace::alloc(key.id, set.number());
        if told {
            self.tell_of(key, Event::Alloc, Audience::EVERYBODY);
            if owner == Right::Anyone {
                Pasid::from_allocation(self, key).into_id();
            }
        } else if self.has_listeners() {
            // A listener was registered meanwhile. If the id is already gone, there is nothing to
            // notify of.
            if let Ok(held) = self.hold(key) {
                self.tell_of(held.key(), Event::Alloc, Audience::EVERYBODY);
            }
        }
        Ok(Key {
            right: owner,
            ..key
        })
    }

    /// Finds a free number and adds it to the space.
    fn enter(&self, wanted: &Wanted) -> Result<Key> {
        loop {
            if self.own.enter() {
                return self.enter_own(wanted).inspect_err(|_| self.own.leave());
            }
            // The list is empty if the last allocator was just removed. Then the next iteration
            // uses the own space.
            if let Some(sources) = self.sources.read() {
                let source = sources.first().ok_or(ENODEV)?;
                return self.enter_from(source, wanted);
            }
        }
    }

    fn enter_own(&self, wanted: &Wanted) -> Result<Key> {
        let &Wanted {
            set, data, owner, ..
        } = wanted;
        let range = wanted.range.within(self.floor, self.capacity());
        let range = range.ok_or(ENOSPC)?;
        let (id, generation) =
            self.ids
                .alloc(range.first(), range.last(), wanted.gfp, |entry, serial| {
                    let generation = Generation::from_raw(serial);
                    entry.begin(generation, set, OWN, data, owner);
                    generation
                })?;
        Ok(Key::of_life(id, generation, owner))
    }

    /// Calls `f` with the private data of an id. [`set_data`](Self::set_data) waits until `f` has
    /// returned.
    ///
    /// `f` must not sleep.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such id; `EACCES` if it is not in the key's set.
    #[inline]
    pub fn find<R>(&self, key: Key, f: impl FnOnce(usize) -> R) -> Result<R> {
        self.with_id(key, |found| Ok(f(found.data()?)))
    }

    /// Takes a reference to an id.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such id; `EACCES` if it is not in the key's set; `EBUSY` if it has
    /// been freed; `EOVERFLOW` if there are too many references.
    pub fn get(&self, key: Key) -> Result<Reference<'_>> {
        let key = self.with_id(key, |found| {
            found.life.get()?;
            Ok(found.key(key.anyones()))
        })?;
        Ok(Reference::from_count(self, key))
    }

    /// Takes a reference to an id, even if it has been freed, so that it exists until the end of an
    /// operation.
    ///
    /// # Errors
    ///
    /// Those of [`get`](Self::get), except for `EBUSY`.
    pub(super) fn hold(&self, key: Key) -> Result<Reference<'_>> {
        let key = self.with_id(key, |found| {
            found.life.hold()?;
            Ok(found.key(key.anyones()))
        })?;
        Ok(Reference::from_count(self, key))
    }

    /// Drops a reference, and returns whether the id is gone. If it is the last reference to an id
    /// that has not been freed, the id is freed first.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such id; `EACCES` if it is not in the key's set; `EPERM` if the only
    /// reference belongs to a [`Pasid`], or if the key has an owner's right but the id has no
    /// owner.
    pub(crate) fn put(&self, mut key: Key) -> Result<bool> {
        loop {
            let put = |found: &Found<'_>| {
                let put = found.life.put(key.right)?;
                Ok((put, found.remains(), found.key(key)))
            };
            match self.with_id(key, put)? {
                (Put::Held, ..) => return Ok(false),
                (Put::Last, remains, _) => {
                    self.reclaim(key.id, remains);
                    return Ok(true);
                }
                (Put::NotFreed, _, life) => {
                    self.begin_free(life)?;
                    key = life;
                }
            }
        }
    }

    /// Frees an id. Has no effect if it has already been freed.
    ///
    /// The number can be reused when the last reference is dropped.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such id; `EACCES` if it is not in the key's set; `EPERM` if the id
    /// belongs to a [`Pasid`].
    pub fn free(&self, key: Key) -> Result {
        if self.has_listeners() {
            if let Some(life) = self.begin_free(key)? {
                self.put(life)?;
            }
            return Ok(());
        }
        let free = |found: &Found<'_>| Ok((found.life.free_and_put(key.right)?, found.remains()));
        let (freed, remains) = self.with_id(key, free)?;
        if freed != Freed::Before {
            trace::free(key.id);
        }
        if freed == Freed::Last {
            self.reclaim(key.id, remains);
        }
        Ok(())
    }

    /// Marks the id as freed and notifies its listeners. Returns the key for dropping the reference
    /// of its allocation, or `None` if the id had already been freed.
    fn begin_free(&self, key: Key) -> Result<Option<Key>> {
        let (first, life) = self.with_id(key, |found| {
            Ok((found.life.free(key.right)?, found.key(key)))
        })?;
        if first {
            trace::free(key.id);
            // The reference of the allocation still exists.
            if self.has_listeners() {
                self.tell_of(life, Event::Free, Audience::EVERYBODY);
            }
        }
        Ok(first.then_some(life))
    }

    /// Releases the number after the last reference was dropped.
    fn reclaim(&self, id: u32, remains: Remains) {
        let Remains { set, origin, spid } = remains;
        if let Some(spid) = spid {
            self.forget_spid(id, set, spid);
        }
        self.ids.remove(id);
        trace::reclaim(id);
        if origin == OWN {
            self.own.leave();
        } else {
            self.return_to(origin, id);
        }
        self.give_quota(set, 1);
    }

    /// Replaces the private data of an id. Sleeps until no reader uses the old data.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such id; `EACCES` if it is not in the key's set; `EOVERFLOW` if
    /// there are too many references.
    pub fn set_data(&self, key: Key, data: usize) -> Result {
        let held = self.hold(key)?;
        self.with_id(held.key(), |found| {
            found.data.store(data, Release);
            Ok(())
        })?;
        drop(held);
        rcu::synchronize_rcu();
        Ok(())
    }

    /// Sets the private data of an id that has none.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the id has private data; otherwise those of [`set_data`](Self::set_data).
    pub fn attach_data(&self, key: Key, data: usize) -> Result {
        let held = self.hold(key)?;
        self.with_id(held.key(), |found| {
            found.data.cmpxchg(0, data, Full).map_err(|_| EBUSY)?;
            Ok(())
        })
    }

    /// Removes the private data of an id. Sleeps until no reader uses them.
    ///
    /// # Errors
    ///
    /// Those of [`set_data`](Self::set_data).
    pub fn detach_data(&self, key: Key) -> Result {
        self.set_data(key, 0)
    }

    /// Marks an id as in use.
    pub(crate) fn bind(&self, key: Key) -> Result {
        self.notify(key, Event::Bind, Audience::EVERYBODY)
    }

    /// Marks an id as no longer in use.
    pub(crate) fn unbind(&self, key: Key) -> Result {
        self.notify(key, Event::Unbind, Audience::EVERYBODY)
    }

    /// Binds or unbinds an id, and notifies an audience.
    ///
    /// # Errors
    ///
    /// `EINVAL` for any other event, or if the id was not bound; `EBUSY` if it is already bound or
    /// has been freed; `ENOENT` if there is no such id; `EACCES` if it is not in the key's set;
    /// `EOVERFLOW` if there are too many references.
    pub(crate) fn notify(&self, key: Key, event: Event, audience: Audience) -> Result {
        let held = self.hold(key)?;
        self.with_id(held.key(), |found| match event {
            Event::Bind => found.life.bind(),
            Event::Unbind => found.life.unbind(),
            Event::Alloc | Event::Free => Err(EINVAL),
        })?;
        self.tell_of(held.key(), event, audience);
        Ok(())
    }

    fn has_listeners(&self) -> bool {
        self.listeners.len() != 0
    }

    /// Notifies an audience of an event, without a lock and outside of RCU. The caller holds a
    /// reference, so the number is not reused meanwhile.
    ///
    /// Events that concurrent calls cause for one id are in no particular order.
    fn tell_of(&self, key: Key, event: Event, audience: Audience) {
        let subject = self.with_id(key, |found| {
            let set = found.set();
            let subject = Subject {
                id: key.id,
                spid: found.spid(),
                set,
                data: found.data()?,
            };
            Ok((subject, self.with_set(set, |state| Ok(state.token))?))
        });
        match subject {
            Ok((subject, owner)) => self.listeners.tell(audience, event, owner, &subject),
            Err(e) => complain(c"tell the listeners of id", key.id, e),
        }
    }

    /// Returns what `f` reads from the first id at or after `from`.
    pub(crate) fn next_id<R>(&self, mut from: u32, f: impl Fn(u32, &Found<'_>) -> R) -> Option<R> {
        let guard = rcu::Guard::new();
        loop {
            let (id, entry) = self.ids.next(from, &guard)?;
            let read = entry.look(Only::Any).and_then(|found| {
                let read = f(id, &found);
                found.if_same(read)
            });
            match read {
                Ok(read) => return Some(read),
                // The id is gone, or the entry is a number that is excluded from the space.
                Err(_) => from = id.checked_add(1)?,
            }
        }
    }
}
