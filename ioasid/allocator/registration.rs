// SPDX-License-Identifier: GPL-2.0

//! Registration of custom allocators, and their ids.

use core::any::TypeId;

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    }, //
};

use kernel_ext::mm::may_warn;

use super::{
    allocator_of,
    position_for,
    removal,
    Allocator,
    AllocatorEntry,
    Kind,
    Origin,
    Removal,
    DEFAULT_ALLOCATOR, //
};
use crate::{
    id::{
        key::Key,
        state::Generation,
        AllocRequest, //
    },
    space::Space,
    trace, //
};

/// Warns about an invalid id that an allocator returned.
fn warn_invalid(id: u32, why: &str) {
    if may_warn() {
        pr_warn!("a custom allocator returned id {}, which {}\n", id, why);
    }
}

/// A registered allocator. Dropping this unregisters it, and sleeps until none of its code is
/// running.
pub struct Registration<'s> {
    space: &'s Space,
    key: usize,
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        // The allocator was registered, so it is in the list.
        if let Err(e) = self.space.remove_allocator(self.key) {
            pr_err!("cannot unregister a custom allocator: {:?}\n", e);
        }
    }
}

impl Space {
    /// Registers a custom allocator. Ids come from it from now on, or when those registered before
    /// it are gone. Sleeps.
    ///
    /// Allocators of the same type share their ids.
    ///
    /// # Errors
    ///
    /// `EEXIST` if the allocator is already registered; `EAGAIN` if it is the first one, and ids of
    /// the default allocator are in use; `EOVERFLOW` if the numbers of kinds are used up; `ENOMEM`.
    pub fn register_allocator<A: Allocator + 'static>(
        &self,
        allocator: Arc<A>,
    ) -> Result<Registration<'_>> {
        let key = Arc::as_ptr(&allocator).addr();
        self.add_allocator(Kind::Type(TypeId::of::<A>()), key, allocator)?;
        Ok(Registration { space: self, key })
    }

    /// Adds an allocator to the list.
    ///
    /// # Errors
    ///
    /// Those of [`register_allocator`](Self::register_allocator).
    pub(crate) fn add_allocator(
        &self,
        kind: Kind,
        key: usize,
        allocator: Arc<dyn Allocator>,
    ) -> Result {
        // On error, the destructor of the allocator must run without the locks. The argument is
        // dropped after they are released, so only clones of it are used up.
        let mut setup = self.setup.lock();
        let first = self.allocators.len() == 0;
        if first && self.own.outstanding() != 0 {
            return Err(EAGAIN);
        }
        let fresh: Origin = setup.last_origin.checked_add(1).ok_or(EOVERFLOW)?;
        let none = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        self.allocators.add(|list| {
            let (at, kin) = position_for(list, kind, key)?;
            let (origin, outstanding) = match kin {
                Some(kin) => (kin.origin, kin.outstanding.clone()),
                None => (fresh, none),
            };
            Ok((
                at,
                AllocatorEntry {
                    origin,
                    kind,
                    key,
                    allocator: allocator.clone(),
                    outstanding,
                },
            ))
        })?;
        setup.last_origin = fresh;
        if first {
            // An id may have been allocated meanwhile. Then it is too early to take over.
            if let Err(e) = self.own.hand_over() {
                self.allocators.remove(|entry| entry.key == key)?;
                return Err(e);
            }
            trace::hand_over(DEFAULT_ALLOCATOR, fresh, 0);
        }
        Ok(())
    }

    /// Removes an allocator from the list, and waits until none of its code is running. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the allocator is not in the list.
    pub(crate) fn remove_allocator(&self, key: usize) -> Result<Removal> {
        let setup = self.setup.lock();
        let removal = match self.allocators.read() {
            Some(list) => removal(&list, key)?,
            None => return Err(ENOENT),
        };
        if removal.handed_to == Some(DEFAULT_ALLOCATOR) {
            self.own.take_back();
        }
        let gone = self.allocators.remove(|entry| entry.key == key)?;
        if removal.last_of_kind {
            let orphans = gone.outstanding();
            self.add_orphans(orphans);
            if let Some(next) = removal.handed_to {
                trace::hand_over(gone.origin, next, orphans);
            }
        }
        drop(setup);
        // This may be the last reference to the allocator. Its destructor must run without the
        // lock.
        drop(gone);
        Ok(removal)
    }

    fn add_orphans(&self, count: i32) {
        if count == 0 {
            return;
        }
        self.orphans.add(count, Relaxed);
        if may_warn() {
            pr_warn!("custom allocator unregistered with {} ids in use\n", count);
            pr_warn!("its device will not be notified when they are freed\n");
        }
    }

    /// Allocates an id from a custom allocator and adds it to the space.
    pub(crate) fn take_from(&self, entry: &AllocatorEntry, request: &AllocRequest) -> Result<Key> {
        let &AllocRequest {
            set, data, owner, ..
        } = request;
        let id = entry.allocator.alloc(request.range, request.gfp)?;
        if !request.range.contains(id) {
            warn_invalid(id, "is outside the requested range");
            // If the id is in use, returning it to the allocator would free it for its user.
            if !self.is_from(id, entry.origin) {
                entry.allocator.free(id);
            }
            return Err(EIO);
        }
        entry.outstanding.add(1, Relaxed);
        let inserted = self.ids.insert(id, request.gfp, |slot, serial| {
            let generation = Generation::from_raw(serial);
            slot.begin(generation, set, entry.origin, data, owner);
            generation
        });
        let generation = inserted
            .inspect_err(|_| entry.outstanding.add(-1, Relaxed))
            .map_err(|e| {
                if e == EBUSY && self.is_from(id, entry.origin) {
                    // The same applies here.
                    warn_invalid(id, "is already in use");
                    return EIO;
                }
                entry.allocator.free(id);
                e
            })?;
        Ok(Key::of_lifetime(id, generation, owner))
    }

    fn is_from(&self, id: u32, origin: Origin) -> bool {
        self.with_id(Key::new(None, id), |found| Ok(found.origin() == origin))
            .unwrap_or(false)
    }

    /// Returns a number to the custom allocator that it came from, after it was removed from the
    /// space.
    pub(crate) fn return_to_allocator(&self, origin: Origin, id: u32) {
        let list = self.allocators.read();
        match list.as_ref().and_then(|list| allocator_of(list, origin)) {
            Some(entry) => {
                entry.allocator.free(id);
                entry.outstanding.add(-1, Relaxed);
            }
            None => self.orphans.add(-1, Relaxed),
        }
    }
}
