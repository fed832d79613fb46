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
    },
};

use kernel_ext::mm::may_warn;

use super::{
    ids::Wanted,
    Space, //
};
use crate::{
    abi::trace,
    key::Key,
    life::Generation,
    source::{
        departure,
        of_origin,
        place,
        Allocator,
        Departure,
        Kind,
        Origin,
        Source,
        OWN, //
    },
};

/// Warns about an invalid id that an allocator returned.
fn warn_of(id: u32, what: &str) {
    if may_warn() {
        pr_warn!("an allocator returned the id {}, which {}\n", id, what);
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
        if let Err(e) = self.space.unregister(self.key) {
            pr_err!("cannot unregister an allocator: {:?}\n", e);
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
    /// the own space are in use; `EOVERFLOW` if the numbers of kinds are used up; `ENOMEM`.
    pub fn register_allocator<A: Allocator + 'static>(
        &self,
        allocator: Arc<A>,
    ) -> Result<Registration<'_>> {
        let key = Arc::as_ptr(&allocator).addr();
        self.register(Kind::Type(TypeId::of::<A>()), key, allocator)?;
        Ok(Registration { space: self, key })
    }

    /// Adds an allocator to the list.
    ///
    /// # Errors
    ///
    /// Those of [`register_allocator`](Self::register_allocator).
    pub(crate) fn register(&self, kind: Kind, key: usize, allocator: Arc<dyn Allocator>) -> Result {
        let mut setup = self.setup.lock();
        let first = self.sources.len() == 0;
        if first && self.own.outstanding() != 0 {
            return Err(EAGAIN);
        }
        let fresh: Origin = setup.last_origin.checked_add(1).ok_or(EOVERFLOW)?;
        let none = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        self.sources.add(|list| {
            let (at, kin) = place(list, kind, key)?;
            let (origin, outstanding) = match kin {
                Some(kin) => (kin.origin, kin.outstanding.clone()),
                None => (fresh, none),
            };
            Ok((
                at,
                Source {
                    origin,
                    kind,
                    key,
                    allocator,
                    outstanding,
                },
            ))
        })?;
        setup.last_origin = fresh;
        if first {
            // An id may have been allocated meanwhile. Then it is too early to take over.
            if let Err(e) = self.own.hand_over() {
                self.sources.remove(|s| s.key == key)?;
                return Err(e);
            }
            trace::hand_over(OWN, fresh, 0);
        }
        Ok(())
    }

    /// Removes an allocator from the list, and waits until none of its code is running. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the allocator is not in the list.
    pub(crate) fn unregister(&self, key: usize) -> Result<Departure> {
        let setup = self.setup.lock();
        let departure = match self.sources.read() {
            Some(list) => departure(&list, key)?,
            None => return Err(ENOENT),
        };
        if departure.handed_to == Some(OWN) {
            self.own.take_back();
        }
        let gone = self.sources.remove(|s| s.key == key)?;
        if departure.last_of_kind {
            let orphans = gone.outstanding();
            self.note_orphans(orphans);
            if let Some(next) = departure.handed_to {
                trace::hand_over(gone.origin, next, orphans);
            }
        }
        drop(setup);
        // This may be the last reference to the allocator. Its destructor must run without the
        // lock.
        drop(gone);
        Ok(departure)
    }

    fn note_orphans(&self, count: i32) {
        if count == 0 {
            return;
        }
        self.orphans.add(count, Relaxed);
        if may_warn() {
            pr_warn!(
                "an allocator is gone, and {} of its ids are in use\n",
                count
            );
            pr_warn!("remaining ids will be freed without notifying it\n");
        }
    }

    /// Allocates an id from a custom allocator and adds it to the space.
    pub(super) fn enter_from(&self, source: &Source, wanted: &Wanted) -> Result<Key> {
        let &Wanted {
            set, data, owner, ..
        } = wanted;
        let id = source.allocator.alloc(wanted.range, wanted.gfp)?;
        if !wanted.range.contains(id) {
            warn_of(id, "is outside of the range that was asked for");
            source.allocator.free(id);
            return Err(EIO);
        }
        source.outstanding.add(1, Relaxed);
        let entered = self.ids.insert(id, wanted.gfp, |entry, serial| {
            let generation = Generation::from_raw(serial);
            entry.begin(generation, set, source.origin, data, owner);
            generation
        });
        let generation = entered
            .inspect_err(|_| source.outstanding.add(-1, Relaxed))
            .map_err(|e| {
                if e == EBUSY && self.is_from(id, source.origin) {
                    // The id is in use. Returning it to the allocator would free it for its user.
                    warn_of(id, "is in use already");
                    return EIO;
                }
                source.allocator.free(id);
                e
            })?;
        Ok(Key::of_life(id, generation, owner))
    }

    fn is_from(&self, id: u32, origin: Origin) -> bool {
        self.with_id(Key::new(None, id), |found| Ok(found.origin() == origin))
            .unwrap_or(false)
    }

    /// Returns a number to its source, after it was removed from the space.
    pub(super) fn return_to(&self, origin: Origin, id: u32) {
        let list = self.sources.read();
        match list.as_ref().and_then(|list| of_origin(list, origin)) {
            Some(source) => {
                source.allocator.free(id);
                source.outstanding.add(-1, Relaxed);
            }
            None => self.orphans.add(-1, Relaxed),
        }
    }
}
