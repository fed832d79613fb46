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
    entry::{
        Found,
        Remains, //
    },
    life::{
        Freed,
        Put, //
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
    set::{
        Token,
        ROOT, //
    },
    source::OWN, //
};

impl Space {
    /// Allocates an id of `range` in no set.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if no id of the range is free; `EDQUOT` if all are promised to sets; `ENOMEM`; what a
    /// custom allocator fails with; `EIO` if that returns what it may not.
    pub fn alloc(&self, range: IdRange, data: usize, gfp: Gfp) -> Result<Pasid<'_>> {
        let id = self.alloc_in(ROOT, range, data, gfp)?;
        Ok(Pasid::from_allocation(self, id))
    }

    /// Allocates an id in a set, which is to be freed by its number.
    ///
    /// # Errors
    ///
    /// Those of [`alloc`](Self::alloc); `EINVAL` if there is no such set, or it is closed.
    pub(crate) fn alloc_in(&self, set: u32, range: IdRange, data: usize, gfp: Gfp) -> Result<u32> {
        self.with_set(set, |state| state.account.take(1))?;
        let id = self
            .enter(set, range, data, gfp)
            .inspect_err(|_| self.give_quota(set, 1))?;
        trace::alloc(id, set);
        if self.has_listeners() {
            self.tell_of(id, Event::Alloc, Audience::EVERYBODY);
        }
        Ok(id)
    }

    /// Finds a number and enters it.
    fn enter(&self, set: u32, range: IdRange, data: usize, gfp: Gfp) -> Result<u32> {
        loop {
            if self.own.enter() {
                return self
                    .enter_own(set, range, data, gfp)
                    .inspect_err(|_| self.own.leave());
            }
            // There is none if the last one goes just now; then the next round is the own space's.
            if let Some(sources) = self.sources.read() {
                let source = sources.first().ok_or(ENODEV)?;
                return self.enter_from(source, set, range, data, gfp);
            }
        }
    }

    fn enter_own(&self, set: u32, range: IdRange, data: usize, gfp: Gfp) -> Result<u32> {
        let range = range.within(self.floor, self.capacity()).ok_or(ENOSPC)?;
        let (first, last) = (range.first(), range.last());
        self.ids
            .alloc(first, last, gfp, |entry| entry.begin(set, OWN, data))
    }

    /// Calls `f` with an id's private data, which stays what it is as long as `f` runs.
    ///
    /// `f` must not sleep.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such id; `EACCES` if it is not in `set`.
    #[inline]
    pub fn find<R>(&self, set: Option<u32>, id: u32, f: impl FnOnce(usize) -> R) -> Result<R> {
        self.with_id(set, id, |found| Ok(f(found.data()?)))
    }

    /// Takes a reference to an id.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such id; `EACCES` if it is not in `set`; `EBUSY` if it is freed;
    /// `EOVERFLOW` if there are too many.
    pub fn get(&self, set: Option<u32>, id: u32) -> Result<Reference<'_>> {
        self.with_id(set, id, |found| found.life.get())?;
        Ok(Reference::from_count(self, id))
    }

    /// Drops a reference by the id's number, and says whether the id is gone.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such id; `EACCES` if it is not in `set`; `EPERM` if the only reference
    /// is that of a [`Pasid`].
    pub(crate) fn put(&self, set: Option<u32>, id: u32) -> Result<bool> {
        loop {
            let put = |found: &Found<'_>| Ok((found.life.put()?, found.remains()));
            match self.with_id(set, id, put)? {
                (Put::Held, _) => return Ok(false),
                (Put::Last, remains) => {
                    self.reclaim(id, remains);
                    return Ok(true);
                }
                (Put::NotFreed, _) => {
                    self.begin_free(set, id)?;
                }
            }
        }
    }

    /// Frees an id by its number. The second time nothing happens.
    ///
    /// The number can be reused when the last reference is gone.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such id; `EACCES` if it is not in `set`; `EPERM` if a [`Pasid`] owns it.
    pub fn free(&self, set: Option<u32>, id: u32) -> Result {
        if self.has_listeners() {
            if self.begin_free(set, id)? {
                self.put(set, id)?;
            }
            return Ok(());
        }
        let free = |found: &Found<'_>| Ok((found.life.free_and_put()?, found.remains()));
        let (freed, remains) = self.with_id(set, id, free)?;
        if freed != Freed::Before {
            trace::free(id);
        }
        if freed == Freed::Last {
            self.reclaim(id, remains);
        }
        Ok(())
    }

    /// Notes that the id is freed and tells those who use it; false if that was done before.
    fn begin_free(&self, set: Option<u32>, id: u32) -> Result<bool> {
        let first = self.with_id(set, id, |found| found.life.free())?;
        if first {
            trace::free(id);
            // The caller has a reference.
            if self.has_listeners() {
                self.tell_of(id, Event::Free, Audience::EVERYBODY);
            }
        }
        Ok(first)
    }

    /// Gives the number back: the last reference is gone.
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

    /// Replaces an id's private data. Sleeps until nobody sees the old one.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such id.
    pub fn set_data(&self, id: u32, data: usize) -> Result {
        self.with_id(None, id, |found| {
            found.data.store(data, Release);
            Ok(())
        })?;
        rcu::synchronize_rcu();
        Ok(())
    }

    /// Gives private data to an id that has none.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such id; `EBUSY` if it has some.
    pub fn attach_data(&self, id: u32, data: usize) -> Result {
        self.with_id(None, id, |found| {
            found.data.cmpxchg(0, data, Full).map_err(|_| EBUSY)?;
            Ok(())
        })
    }

    /// Takes an id's private data away. Sleeps until nobody sees it.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such id.
    pub fn detach_data(&self, id: u32) -> Result {
        self.set_data(id, 0)
    }

    /// Notes that an id is in use.
    pub(crate) fn bind(&self, id: u32) -> Result {
        self.notify(id, Event::Bind, Audience::EVERYBODY)
    }

    /// Notes that an id is not in use any more.
    pub(crate) fn unbind(&self, id: u32) -> Result {
        self.notify(id, Event::Unbind, Audience::EVERYBODY)
    }

    /// Binds or unbinds an id, and tells an audience of it.
    ///
    /// # Errors
    ///
    /// `EINVAL` for any other event, or if the id was not bound; `EBUSY` if it is bound already, or is
    /// freed; `ENOENT` if there is no such id.
    pub(crate) fn notify(&self, id: u32, event: Event, audience: Audience) -> Result {
        self.with_id(None, id, |found| match event {
            Event::Bind => found.life.bind(),
            Event::Unbind => found.life.unbind(),
            Event::Alloc | Event::Free => Err(EINVAL),
        })?;
        self.tell_of(id, event, audience);
        Ok(())
    }

    /// A value owns the allocation from now on.
    pub(crate) fn own(&self, id: u32) {
        let _ = self.with_id(None, id, |found| {
            found.life.own();
            Ok(())
        });
    }

    /// The allocation is not a value's any more.
    pub(crate) fn disown(&self, id: u32) {
        let _ = self.with_id(None, id, |found| {
            found.life.disown();
            Ok(())
        });
    }

    fn has_listeners(&self) -> bool {
        self.listeners.len() != 0
    }

    /// Tells an audience what happened to an id, outside of any lock and of RCU.
    fn tell_of(&self, id: u32, event: Event, audience: Audience) {
        let subject: Result<(Subject, Token)> = self.with_id(None, id, |found| {
            let owner = self.with_set(found.set(), |set| Ok(set.token));
            Ok((found.subject(id), owner.unwrap_or(Token::None)))
        });
        if let Ok((subject, owner)) = subject {
            self.listeners.tell(audience, event, owner, &subject);
        }
    }

    /// The first id that is not below `from`, as it is found.
    pub(crate) fn next_id<R>(
        &self,
        mut from: u32,
        f: impl FnOnce(u32, &Found<'_>) -> R,
    ) -> Option<R> {
        let guard = rcu::Guard::new();
        loop {
            let (id, entry) = self.ids.next(from, &guard)?;
            if let Ok(found) = entry.look(None) {
                return Some(f(id, &found));
            }
            from = id + 1;
        }
    }
}
