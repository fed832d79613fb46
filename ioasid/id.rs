// SPDX-License-Identifier: GPL-2.0

//! Ids: allocating, finding, referencing and freeing them.

#[allow(unsafe_code)]
pub(crate) mod abi;
pub(crate) mod entry;
pub(crate) mod handle;
pub(crate) mod key;
pub(crate) mod range;
pub(crate) mod state;

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Full,
            Release, //
        },
        rcu, //
    }, //
};

use crate::{
    allocator::DEFAULT_ALLOCATOR,
    gfp::Gfp,
    id::{
        entry::{
            Found,
            IdResources, //
        },
        handle::{
            Pasid,
            Reference, //
        },
        key::{
            Filter,
            Key, //
        },
        range::IdRange,
        state::{
            Freed,
            Generation,
            Put,
            Right, //
        }, //
    },
    notifier::{
        Event,
        NotifyFlags, //
    },
    set::SetId,
    space::Space,
    trace, //
};

/// The parameters of an allocation.
pub(crate) struct AllocRequest {
    pub(crate) set: SetId,
    pub(crate) range: IdRange,
    pub(crate) data: usize,
    pub(crate) gfp: Gfp,
    pub(crate) owner: Right,
}

impl Space {
    /// Allocates an id in `range` that is in no set.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if no id in the range is free; `EDQUOT` if all ids are reserved for sets; `ENOMEM`;
    /// the error of a custom allocator; `EIO` if a custom allocator returns an id that is outside
    /// of `range` or that its kind has in use; `EBUSY` if it returns an id of another source.
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
        // Any caller can guess the number. If there are notifiers, the id therefore belongs to this
        // call until they were called, so that it cannot be freed before.
        let notify = self.has_notifiers();
        let request = AllocRequest {
            set,
            range,
            data,
            gfp,
            owner: if notify { Right::Owner } else { owner },
        };
        let key = self
            .take_number(&request)
            .inspect_err(|_| self.give_quota(set, 1))?;
        trace::alloc(key.id, set.number());
        if notify {
            self.call_notifiers(key, Event::Alloc, NotifyFlags::BOTH);
            if owner == Right::Anyone {
                Pasid::from_allocation(self, key).into_id();
            }
        } else if self.has_notifiers() {
            // A notifier was registered meanwhile. If the id is already gone, there is no event.
            if let Ok(held) = self.hold(key) {
                self.call_notifiers(held.key(), Event::Alloc, NotifyFlags::BOTH);
            }
        }
        Ok(Key {
            right: owner,
            ..key
        })
    }

    /// Finds a free number and adds it to the space.
    fn take_number(&self, request: &AllocRequest) -> Result<Key> {
        loop {
            if self.own.enter() {
                return self.take_own(request).inspect_err(|_| self.own.leave());
            }
            // The list is empty if the last allocator was just removed. Then the next iteration
            // uses the default allocator.
            let list = self.allocators.read();
            if let Some(active) = list.as_ref().and_then(|list| list.first()) {
                return self.take_from(active, request);
            }
        }
    }

    fn take_own(&self, request: &AllocRequest) -> Result<Key> {
        let &AllocRequest {
            set, data, owner, ..
        } = request;
        let range = request.range.within(self.floor(), self.capacity());
        let range = range.ok_or(ENOSPC)?;
        let (id, generation) =
            self.ids
                .alloc(range.first(), range.last(), request.gfp, |entry, serial| {
                    let generation = Generation::from_raw(serial);
                    entry.begin(generation, set, DEFAULT_ALLOCATOR, data, owner);
                    generation
                })?;
        Ok(Key::of_lifetime(id, generation, owner))
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
            found.lifetime.get()?;
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
    pub(crate) fn hold(&self, key: Key) -> Result<Reference<'_>> {
        let key = self.with_id(key, |found| {
            found.lifetime.hold()?;
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
                let put = found.lifetime.put(key.right)?;
                Ok((put, found.resources(), found.key(key)))
            };
            match self.with_id(key, put)? {
                (Put::Held, ..) => return Ok(false),
                (Put::Last, resources, _) => {
                    self.reclaim(key.id, resources);
                    return Ok(true);
                }
                (Put::NotFreed, _, lifetime) => {
                    self.begin_free(lifetime)?;
                    key = lifetime;
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
        if self.has_notifiers() {
            if let Some(lifetime) = self.begin_free(key)? {
                self.put(lifetime)?;
            }
            return Ok(());
        }
        let free =
            |found: &Found<'_>| Ok((found.lifetime.free_and_put(key.right)?, found.resources()));
        let (freed, resources) = self.with_id(key, free)?;
        if freed != Freed::Before {
            trace::free(key.id);
        }
        if freed == Freed::Last {
            self.reclaim(key.id, resources);
        }
        Ok(())
    }

    /// Marks the id as freed and calls its notifiers. Returns the key for dropping the reference
    /// of its allocation, or `None` if the id had already been freed.
    fn begin_free(&self, key: Key) -> Result<Option<Key>> {
        let (first, lifetime) = self.with_id(key, |found| {
            Ok((found.lifetime.free(key.right)?, found.key(key)))
        })?;
        if first {
            trace::free(key.id);
            // The reference of the allocation still exists.
            if self.has_notifiers() {
                self.call_notifiers(lifetime, Event::Free, NotifyFlags::BOTH);
            }
        }
        Ok(first.then_some(lifetime))
    }

    /// Releases the number after the last reference was dropped.
    fn reclaim(&self, id: u32, resources: IdResources) {
        let IdResources { set, origin, spid } = resources;
        if let Some(spid) = spid {
            self.forget_spid(id, set, spid);
        }
        self.ids.remove(id);
        trace::reclaim(id);
        if origin == DEFAULT_ALLOCATOR {
            self.own.leave();
        } else {
            self.return_to_allocator(origin, id);
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

    /// Returns what `f` reads from the first id at or after `from`.
    pub(crate) fn next_id<R>(&self, mut from: u32, f: impl Fn(u32, &Found<'_>) -> R) -> Option<R> {
        let guard = rcu::Guard::new();
        loop {
            let (id, entry) = self.ids.next(from, &guard)?;
            let read = entry.lookup(Filter::Any).and_then(|found| {
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
