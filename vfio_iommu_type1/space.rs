// SPDX-License-Identifier: GPL-2.0

//! The address space of a container, and the range lock that protects it.
//!
//! Each request locks the iova range that it operates on. It then checks its arguments, does its
//! work and publishes the result. While the range is locked, no other request changes a mapping in
//! it: a check stays valid until the range is unlocked, and other requests see either the whole
//! effect or none of it. Requests for disjoint ranges run in parallel, and so do overlapping ones
//! that are both shared. Other overlapping requests run in the order of their arrival.
//!
//! | Guard | Locks | Allows |
//! |---|---|---|
//! | [`RangeGuard`] | a range, exclusively | removing and changing mappings there |
//! | [`SharedGuard`] | a range, shared | reading mappings; recording something in them |
//! | [`Vacant`] | a range, exclusively | inserting a mapping there |
//! | [`WholeGuard`] | everything, exclusively | the same, and changing the groups and domains |
//!
//! One mutex protects the queue of the lock, the mappings and the layout. A request that does not
//! have to wait enters the queue and runs its checks in one critical section. After that it takes
//! the mutex only for lookups and insertions: it does not pin memory, change a page table or copy
//! user memory with the mutex held. To work on the pages of a mapping, the holder of its range
//! takes them out of the tree and puts them back afterwards.
//!
//! Only `enter` waits for other requests. It is also the only function that creates guards, and a
//! thread holds one guard at a time, so a thread that waits holds no range.

mod dmas;
mod guard;
mod queue;

use core::convert::Infallible;

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        lock::{
            mutex::MutexBackend,
            Guard, //
        },
        Mutex, //
    },
};

use kernel_ext::{
    iova::Range,
    keyed_wait::KeyedWait, //
};

use self::{
    dmas::Removed,
    queue::{
        Mode,
        Queue,
        Ticket, //
    },
};

pub(crate) use self::{
    dmas::{
        Dma,
        DmaTree,
        Pages,
        Reservation,
        Vaddr, //
    },
    guard::{
        Held,
        HeldMut,
        Look,
        RangeGuard,
        SharedGuard,
        Vacant,
        WholeGuard, //
    },
};

/// The types of the data in an address space: those of this module, or those of the models in
/// `tools/testing/models`.
pub(crate) trait SpaceTypes {
    /// Data that does not change while any address is locked.
    type Layout;
    /// Data that may change whenever the mutex is held.
    type MutexData;
    /// The pages of a mapping.
    type Pages: Pages;
}

/// The data that the mutex protects.
struct Inner<K: SpaceTypes> {
    queue: Queue,
    dmas: DmaTree<K::Pages>,
    layout: K::Layout,
    mutex_data: K::MutexData,
}

// No field is structurally pinned.
impl<K: SpaceTypes> Unpin for Inner<K> {}

/// The locked mutex.
type Locked<'a, K> = Guard<'a, Inner<K>, MutexBackend>;

/// The mappings of a container, its layout, and the lock that protects them.
#[pin_data]
pub(crate) struct Space<K: SpaceTypes> {
    #[pin]
    inner: Mutex<Inner<K>>,
    /// The threads that wait for a request to leave the queue, keyed by the number of that
    /// request.
    #[pin]
    waiting: KeyedWait,
}

/// The task is being killed, and its request has left the queue without its turn.
pub(crate) struct Killed;

impl From<Killed> for Error {
    fn from(_: Killed) -> Self {
        EINTR
    }
}

/// A mapping, at this range, overlaps one that is to be inserted.
pub(crate) struct Occupied(pub(crate) Range);

impl From<Occupied> for Error {
    fn from(_: Occupied) -> Self {
        EEXIST
    }
}

impl<K: SpaceTypes> Space<K> {
    /// Creates an address space without mappings.
    pub(crate) fn new(layout: K::Layout, mutex_data: K::MutexData) -> impl PinInit<Self> {
        let inner = Inner {
            queue: Queue::new(),
            dmas: DmaTree::new(),
            layout,
            mutex_data,
        };
        pin_init!(Self {
            inner <- new_mutex!(inner),
            waiting <- KeyedWait::new(),
        })
    }

    /// Gives access to the address space without locking any address. The data may be out of date
    /// as soon as the returned value is dropped. Does not wait for requests.
    pub(crate) fn look(&self) -> Look<'_, K> {
        Look(self.inner.lock())
    }

    /// Locks `range` exclusively. Calls `begin` with the mutex held as soon as the range is
    /// locked.
    ///
    /// # Errors
    ///
    /// Those of `begin`; the range is unlocked then. [`Killed`] if the task is killed while it
    /// waits.
    pub(crate) fn lock<R, E: From<Killed>>(
        &self,
        range: Range,
        begin: impl FnOnce(&mut HeldMut<'_, K>) -> Result<R, E>,
    ) -> Result<(RangeGuard<'_, K>, R), E> {
        self.enter(
            |_| range,
            Mode::Exclusive,
            Some(E::from),
            |held| begin(&mut HeldMut(held)),
        )
    }

    /// Locks `range`, or everything if `whole`, to insert a mapping at `range`. With the mutex held,
    /// calls `check`, then `begin` if nothing is mapped in `range`.
    ///
    /// # Errors
    ///
    /// Those of `check`; [`Occupied`] if something is mapped in `range`; those of
    /// [`lock`](Self::lock).
    pub(crate) fn lock_vacant<R, E: From<Killed> + From<Occupied>>(
        &self,
        range: Range,
        whole: bool,
        check: impl FnOnce(&K::Layout) -> Result<(), E>,
        begin: impl FnOnce(&mut HeldMut<'_, K>) -> Result<R, E>,
    ) -> Result<(Vacant<'_, K>, R), E> {
        let locked = if whole { Range::ALL } else { range };
        let (guard, begun) = self.lock(locked, |held| {
            check(held.layout)?;
            match held.dmas().first_in(range) {
                Some(found) => Err(Occupied(found).into()),
                None => begin(held),
            }
        })?;
        // INVARIANT: Nothing is mapped in the range, and only the holder of the lock inserts there.
        Ok((Vacant { guard, range }, begun))
    }

    /// Like [`lock`](Self::lock), but locks `range` and every mapping that overlaps it as a whole,
    /// and waits also if the task is being killed.
    ///
    /// # Errors
    ///
    /// Those of `begin`.
    pub(crate) fn lock_mappings<R, E>(
        &self,
        range: Range,
        mut begin: impl FnMut(&mut HeldMut<'_, K>) -> Result<R, E>,
    ) -> Result<(RangeGuard<'_, K>, R), E> {
        let widened = self.enter(
            |dmas| dmas.whole(range),
            Mode::Exclusive,
            None,
            |held| {
                if held.range.contains(held.dmas.whole(range)) {
                    begin(&mut HeldMut(held)).map(Some)
                } else {
                    Ok(None)
                }
            },
        )?;
        if let (guard, Some(begun)) = widened {
            return Ok((guard, begun));
        }
        // Larger mappings were added while this request waited. Lock everything: no mapping can
        // exceed that.
        drop(widened);
        self.enter(
            |_| Range::ALL,
            Mode::Exclusive,
            None,
            |held| begin(&mut HeldMut(held)),
        )
    }

    /// Locks `range` in shared mode. Waits also if the task is being killed.
    ///
    /// # Errors
    ///
    /// Those of `begin`.
    pub(crate) fn share<R, E>(
        &self,
        range: Range,
        begin: impl FnOnce(&mut Held<'_, K>) -> Result<R, E>,
    ) -> Result<(SharedGuard<'_, K>, R), E> {
        let (guard, begun) =
            self.enter(|_| range, Mode::Shared, None, |mut held| begin(&mut held))?;
        Ok((SharedGuard(guard), begun))
    }

    /// Locks all addresses exclusively.
    ///
    /// # Errors
    ///
    /// Those of [`lock`](Self::lock).
    pub(crate) fn lock_all_killable<E: From<Killed>>(
        &self,
        begin: impl FnOnce(&mut HeldMut<'_, K>) -> Result<(), E>,
    ) -> Result<WholeGuard<'_, K>, E> {
        let begin = |held: Held<'_, K>| begin(&mut HeldMut(held));
        let (guard, ()) = self.enter(|_| Range::ALL, Mode::Exclusive, Some(E::from), begin)?;
        Ok(guard)
    }

    /// Locks all addresses exclusively; cannot fail. Waits also if the task is being killed.
    pub(crate) fn lock_all(&self) -> WholeGuard<'_, K> {
        let begin = |_: Held<'_, K>| Ok::<_, Infallible>(());
        let Ok((guard, ())) = self.enter(|_| Range::ALL, Mode::Exclusive, None, begin);
        guard
    }

    /// Enters the queue, waits for the turn of the request, and calls `begin`. `range` computes
    /// the range to lock from the mappings at the time at which the request enters the queue.
    ///
    /// If there is a function `killed`, and the task is killed while it waits, the request leaves
    /// the queue and fails with the error that the function returns.
    ///
    /// For `WHOLE`, `range` must return [`Range::ALL`].
    fn enter<const WHOLE: bool, R, E>(
        &self,
        range: impl Fn(&DmaTree<K::Pages>) -> Range,
        mode: Mode,
        killed: Option<fn(Killed) -> E>,
        begin: impl FnOnce(Held<'_, K>) -> Result<R, E>,
    ) -> Result<(RangeGuard<'_, K, WHOLE>, R), E> {
        let mut inner = self.inner.lock();
        let locked = range(&inner.dmas);
        let entered = inner.queue.enter(locked, mode);
        let turn = entered
            .ok()
            .filter(|&ticket| inner.queue.blocker_of(ticket).is_none());
        let (mut inner, locked, ticket) = match turn {
            Some(ticket) => (inner, locked, ticket),
            None => self.wait_turn(inner, locked, entered, range, mode, killed)?,
        };
        let mut removed = Removed::default();
        match begin(Held::new(&mut inner, locked, &mut removed)) {
            Ok(begun) => {
                drop(inner);
                let guard = RangeGuard {
                    space: self,
                    ticket,
                    range: locked,
                    removed,
                };
                Ok((guard, begun))
            }
            Err(e) => {
                self.leave(inner, ticket, removed);
                Err(e)
            }
        }
    }

    /// Waits for the turn of a request of [`enter`](Self::enter), which has `entered` the queue with
    /// the range `locked`, or has to wait for another request to do so. Returns the mutex, the
    /// range and the request.
    ///
    /// # Errors
    ///
    /// That of `killed`.
    #[cold]
    #[inline(never)]
    fn wait_turn<'a, E>(
        &'a self,
        mut inner: Locked<'a, K>,
        mut locked: Range,
        mut entered: Result<Ticket, Ticket>,
        range: impl Fn(&DmaTree<K::Pages>) -> Range,
        mode: Mode,
        killed: Option<fn(Killed) -> E>,
    ) -> Result<(Locked<'a, K>, Range, Ticket), E> {
        let ticket = loop {
            match entered {
                Ok(ticket) => break ticket,
                Err(other) => {
                    let (again, gone) = self.wait(other, inner, killed);
                    if let Some(e) = gone {
                        return Err(e);
                    }
                    inner = again;
                    locked = range(&inner.dmas);
                    entered = inner.queue.enter(locked, mode);
                }
            }
        };
        while let Some(blocker) = inner.queue.blocker_of(ticket) {
            let (again, gone) = self.wait(blocker, inner, killed);
            if let Some(e) = gone {
                self.leave(again, ticket, Removed::default());
                return Err(e);
            }
            inner = again;
        }
        Ok((inner, locked, ticket))
    }

    /// Releases the mutex, waits for the request `other`, and locks the mutex again. Returns the
    /// error of `killed` if there is one and the task is being killed.
    fn wait<'a, E>(
        &'a self,
        other: Ticket,
        inner: Locked<'a, K>,
        killed: Option<fn(Killed) -> E>,
    ) -> (Locked<'a, K>, Option<E>) {
        let (inner, gone) = self.waiting.wait(other.number(), inner, killed.is_some());
        (inner, killed.filter(|_| gone).map(|killed| killed(Killed)))
    }

    /// Unlocks the range of a request, releases the mutex, and wakes the threads that wait for the
    /// request.
    fn leave(&self, mut inner: Locked<'_, K>, ticket: Ticket, removed: Removed) {
        inner.dmas.uncount(removed);
        let awaited = inner.queue.leave(ticket);
        drop(inner);
        if awaited {
            self.waiting.wake(ticket.number());
        }
    }
}
