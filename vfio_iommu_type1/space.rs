// SPDX-License-Identifier: GPL-2.0

//! The address space of a container, and the range lock that protects it.
//!
//! Each request locks the IOVA range that it operates on. It then checks its arguments, does its
//! work and publishes the result. While the range is locked, no other request changes a mapping in
//! it: a check stays valid until the range is unlocked, and other requests see either the whole
//! effect or none of it. Requests for disjoint ranges run in parallel, and so do overlapping ones
//! that are both shared. Other overlapping requests run in the order of their arrival.
//!
//! | Guard | Locks | Allows |
//! |---|---|---|
//! | [`RangeGuard`] | a range, exclusively | adding, removing and changing mappings there |
//! | [`SharedGuard`] | a range, shared | reading mappings; recording something in them |
//! | [`WholeGuard`] | everything, exclusively | the same, and changing the groups and domains |
//!
//! One mutex protects the queue of the lock, the mappings and the layout. A request that does not
//! have to wait enters the queue and runs its checks in one critical section. After that it takes
//! the mutex only for lookups and insertions: it does not pin memory, change a page table or copy
//! user memory with the mutex held. To work on the pages of a mapping, the holder of its range
//! takes them out of the tree and puts them back afterwards.
//!
//! Only `enter` waits for other requests. It is also the only function that creates guards, and a
//! thread holds one guard at a time, so a waiting thread has no addresses locked.

mod dmas;
mod queue;

use core::{
    convert::Infallible,
    ops::{
        Deref,
        DerefMut, //
    },
};

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

use iommu_group::ranges::Range;

use kernel_ext::keyed_wait::KeyedWait;

use self::{
    dmas::Removed,
    queue::{
        Mode,
        Queue,
        Ticket, //
    },
};

pub(crate) use self::dmas::{
    Dma,
    DmaTree,
    Pages,
    Reservation,
    Vaddr, //
};

/// The types that an address space consists of.
pub(crate) trait Kind {
    /// Data that does not change while any address is locked.
    type Layout;
    /// Data that may change whenever the mutex is held.
    type State;
    /// The pages of a mapping.
    type Pages: Pages;
}

/// The data that the mutex protects.
struct Inner<K: Kind> {
    queue: Queue,
    dmas: DmaTree<K::Pages>,
    layout: K::Layout,
    state: K::State,
}

// No field is structurally pinned.
impl<K: Kind> Unpin for Inner<K> {}

/// The mappings of a container, its layout, and the lock that protects them.
#[pin_data]
pub(crate) struct Space<K: Kind> {
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

impl<K: Kind> Space<K> {
    /// Creates an address space without mappings.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(layout: K::Layout, state: K::State) -> Result<impl PinInit<Self>> {
        let inner = Inner {
            queue: Queue::new()?,
            dmas: DmaTree::new(),
            layout,
            state,
        };
        Ok(pin_init!(Self {
            inner <- new_mutex!(inner),
            waiting <- KeyedWait::new(),
        }))
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
        begin: impl FnOnce(&mut Alone<'_, K>) -> Result<R, E>,
    ) -> Result<(RangeGuard<'_, K>, R), E> {
        let killed = Some(Killed.into());
        self.enter(
            |_| range,
            Mode::Exclusive,
            killed,
            |held| begin(&mut Alone(held)),
        )
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
        mut begin: impl FnMut(&mut Alone<'_, K>) -> Result<R, E>,
    ) -> Result<(RangeGuard<'_, K>, R), E> {
        let widened = self.enter(
            |dmas| dmas.whole(range),
            Mode::Exclusive,
            None,
            |held| {
                if held.range.contains(held.dmas.whole(range)) {
                    begin(&mut Alone(held)).map(Some)
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
            |held| begin(&mut Alone(held)),
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
    pub(crate) fn try_lock_all<E: From<Killed>>(
        &self,
        begin: impl FnOnce(&mut Alone<'_, K>) -> Result<(), E>,
    ) -> Result<WholeGuard<'_, K>, E> {
        let (guard, ()) = self.lock(Range::ALL, begin)?;
        Ok(WholeGuard(guard))
    }

    /// Locks all addresses exclusively; cannot fail. Waits also if the task is being killed.
    pub(crate) fn lock_all(&self) -> WholeGuard<'_, K> {
        let begin = |_: Held<'_, K>| Ok::<_, Infallible>(());
        let Ok((guard, ())) = self.enter(|_| Range::ALL, Mode::Exclusive, None, begin);
        WholeGuard(guard)
    }

    /// Enters the queue, waits for the turn of the request, and calls `begin`. `range` computes
    /// the range to lock from the mappings at the time at which the request enters the queue.
    ///
    /// If there is an error in `killed`, and the task is killed while it waits, the request leaves
    /// the queue and fails with that error.
    fn enter<R, E>(
        &self,
        range: impl Fn(&DmaTree<K::Pages>) -> Range,
        mode: Mode,
        mut killed: Option<E>,
        begin: impl FnOnce(Held<'_, K>) -> Result<R, E>,
    ) -> Result<(RangeGuard<'_, K>, R), E> {
        let mut inner = self.inner.lock();
        let (range, ticket) = loop {
            let range = range(&inner.dmas);
            match inner.queue.enter(range, mode) {
                Ok(ticket) => break (range, ticket),
                Err(other) => {
                    let (again, gone) = self.wait(other, inner, &mut killed);
                    if let Some(e) = gone {
                        return Err(e);
                    }
                    inner = again;
                }
            }
        };
        while let Some(blocker) = inner.queue.blocker_of(ticket) {
            let (again, gone) = self.wait(blocker, inner, &mut killed);
            if let Some(e) = gone {
                self.leave(again, ticket, Removed::default());
                return Err(e);
            }
            inner = again;
        }
        let mut removed = Removed::default();
        match begin(Held::new(&mut inner, range, &mut removed)) {
            Ok(begun) => {
                drop(inner);
                let guard = RangeGuard {
                    space: self,
                    ticket,
                    range,
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

    /// Releases the mutex, waits for the request `other`, and locks the mutex again. Takes the
    /// error out of `killed` if there is one and the task is being killed.
    fn wait<'a, E>(
        &'a self,
        other: Ticket,
        inner: Guard<'a, Inner<K>, MutexBackend>,
        killed: &mut Option<E>,
    ) -> (Guard<'a, Inner<K>, MutexBackend>, Option<E>) {
        let (inner, gone) = self.waiting.wait(other.number(), inner, killed.is_some());
        (inner, killed.take_if(|_| gone))
    }

    /// Unlocks the range of a request, releases the mutex, and wakes the threads that wait for the
    /// request.
    fn leave(
        &self,
        mut inner: Guard<'_, Inner<K>, MutexBackend>,
        ticket: Ticket,
        removed: Removed,
    ) {
        inner.dmas.settle(removed);
        let awaited = inner.queue.leave(ticket);
        drop(inner);
        if awaited {
            self.waiting.wake(ticket.number());
        }
    }
}

/// The mutex of an address space, held by a thread that need not have locked any address.
pub(crate) struct Look<'a, K: Kind>(Guard<'a, Inner<K>, MutexBackend>);

impl<K: Kind> Look<'_, K> {
    /// Returns the layout.
    pub(crate) fn layout(&self) -> &K::Layout {
        &self.0.layout
    }

    /// Returns the state.
    pub(crate) fn state(&mut self) -> &mut K::State {
        &mut self.0.state
    }

    /// Returns the number of mappings.
    pub(crate) fn mappings(&self) -> usize {
        self.0.dmas.len()
    }

    /// Returns the number of requests that hold a range or wait for one.
    pub(crate) fn requests(&self) -> usize {
        self.0.queue.len()
    }

    /// Returns the range of the first mapping that overlaps `range`.
    pub(crate) fn first_in(&self, range: Range) -> Option<Range> {
        self.0.dmas.first_in(range)
    }

    /// Calls `f` for each mapping in `range` until it returns `false`.
    pub(crate) fn for_each_in(
        &mut self,
        range: Range,
        f: impl FnMut(Range, &Dma<K::Pages>) -> bool,
    ) {
        self.0.dmas.for_each_in(range, f);
    }
}

/// The mutex of an address space, held by a thread that has locked `range`, exclusively or shared.
///
/// Only a thread that has locked all of a mapping exclusively takes its pages out of the tree. The
/// pages of every mapping that overlaps `range` are therefore in the tree.
pub(crate) struct Held<'a, K: Kind> {
    range: Range,
    dmas: &'a mut DmaTree<K::Pages>,
    removed: &'a mut Removed,
    /// The layout.
    pub(crate) layout: &'a K::Layout,
    /// The state.
    pub(crate) state: &'a mut K::State,
}

impl<'a, K: Kind> Held<'a, K> {
    fn new(inner: &'a mut Inner<K>, range: Range, removed: &'a mut Removed) -> Self {
        Self {
            range,
            dmas: &mut inner.dmas,
            removed,
            layout: &inner.layout,
            state: &mut inner.state,
        }
    }

    /// Returns the number of mappings in the whole container.
    pub(crate) fn mappings(&self) -> usize {
        self.dmas.len()
    }

    /// Returns whether any mapping in the whole container has an invalid vaddr.
    pub(crate) fn has_invalid_vaddr(&self) -> bool {
        self.dmas.invalid() != 0
    }

    /// Returns the range of the first mapping that overlaps `range`.
    pub(crate) fn first_in(&self, range: Range) -> Option<Range> {
        self.dmas.first_in(range)
    }

    /// Returns a mapping that overlaps `range` but is not contained in it.
    pub(crate) fn cut_by(&self, range: Range) -> Option<Range> {
        let first = self.dmas.first_in(range)?;
        let is_only_one = first.last >= range.last;
        let last = if is_only_one {
            None
        } else {
            self.dmas.at(range.last)
        };
        let mut ends = [Some(first), last].into_iter().flatten();
        ends.find(|dma| !range.contains(*dma))
    }

    /// Calls `f` for each mapping that overlaps the locked range, beginning at IOVA `start`, until
    /// it returns `false`.
    pub(crate) fn for_each_from(
        &mut self,
        start: u64,
        f: impl FnMut(Range, &mut Dma<K::Pages>) -> bool,
    ) {
        let Range { start: first, last } = self.range;
        let start = start.max(first);
        if start <= last {
            self.dmas.for_each_in_mut(Range { start, last }, f);
        }
    }
}

/// The mutex of an address space, held by a thread that has locked `range` exclusively.
pub(crate) struct Alone<'a, K: Kind>(Held<'a, K>);

impl<'a, K: Kind> Deref for Alone<'a, K> {
    type Target = Held<'a, K>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<K: Kind> DerefMut for Alone<'_, K> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl<K: Kind> Alone<'_, K> {
    /// Sets or invalidates the vaddr of each mapping that begins in `range`. The caller has locked
    /// all of these mappings.
    pub(crate) fn set_vaddr(&mut self, range: Range, vaddr: Option<Vaddr>) {
        self.0.dmas.set_vaddr(range, vaddr);
    }

    /// Inserts a mapping whose last IOVA is `last`. It lies in the locked range and overlaps no
    /// other mapping.
    pub(crate) fn insert(&mut self, last: u64, dma: Dma<K::Pages>, memory: Reservation<K::Pages>) {
        self.0.dmas.insert(last, dma, memory);
    }

    /// Removes the first mapping that begins in `range`, and those of its successors that can be
    /// unmapped together with it. The caller has locked all of these mappings.
    ///
    /// Returns the pages of the removed mappings, which the caller drops without the mutex, and
    /// the part of `range` in which further mappings begin. The removed mappings are counted until
    /// the guard is dropped, so that other requests see all of them disappear at once.
    pub(crate) fn remove_some(&mut self, range: Range) -> (Option<K::Pages>, Option<Range>) {
        // The number of mappings to remove before the mutex is released.
        const MOST: usize = 512;
        let Held { dmas, removed, .. } = &mut self.0;
        let (mut taken, mut count) = (None::<K::Pages>, 0);
        let rest = dmas.remove_in(range, removed, |pages| {
            count += 1;
            match &mut taken {
                None => {
                    taken = Some(pages);
                    Ok(())
                }
                Some(taken) if count <= MOST => taken.join(pages),
                Some(_) => Err(pages),
            }
        });
        (taken, rest)
    }

    /// Takes out the pages of the first mapping that overlaps `range`. The caller has locked all
    /// of it.
    fn take_first(&mut self, range: Range) -> Option<(Range, Option<Vaddr>, K::Pages)> {
        let mut taken = None;
        let own = self.0.range;
        self.0.for_each_from(range.start, |found, dma| {
            if !found.overlaps(range) {
                return false;
            }
            let vaddr = dma.vaddr();
            if own.contains(found) {
                taken = dma.take().map(|pages| (found, vaddr, pages));
            }
            taken.is_none()
        });
        taken
    }
}

/// The right to change the mappings in a range. Dropping it unlocks the range.
pub(crate) struct RangeGuard<'a, K: Kind> {
    space: &'a Space<K>,
    ticket: Ticket,
    range: Range,
    removed: Removed,
}

impl<K: Kind> RangeGuard<'_, K> {
    /// Returns the locked range.
    pub(crate) fn range(&self) -> Range {
        self.range
    }

    /// Calls `f` with the mutex held.
    pub(crate) fn with<R>(&mut self, f: impl FnOnce(&mut Alone<'_, K>) -> R) -> R {
        let mut inner = self.space.inner.lock();
        let held = Held::new(&mut inner, self.range, &mut self.removed);
        f(&mut Alone(held))
    }

    /// Like [`with`](Self::with), but also unlocks the range before the mutex is released.
    pub(crate) fn finish<R>(self, f: impl FnOnce(&mut Alone<'_, K>) -> R) -> R {
        let finished = self.try_finish(|held| Ok::<_, Infallible>(f(held)));
        match finished {
            Ok(result) => result,
            Err((_, never)) => match never {},
        }
    }

    /// Like [`finish`](Self::finish), but `f` can fail.
    ///
    /// # Errors
    ///
    /// Those of `f`, together with the guard: the range stays locked.
    pub(crate) fn try_finish<R, E>(
        mut self,
        f: impl FnOnce(&mut Alone<'_, K>) -> Result<R, E>,
    ) -> Result<R, (Self, E)> {
        let space = self.space;
        let mut inner = space.inner.lock();
        let held = Held::new(&mut inner, self.range, &mut self.removed);
        match f(&mut Alone(held)) {
            Ok(result) => {
                space.leave(inner, self.ticket, core::mem::take(&mut self.removed));
                core::mem::forget(self);
                Ok(result)
            }
            Err(e) => {
                drop(inner);
                Err((self, e))
            }
        }
    }

    /// Calls `f` without the mutex for each mapping that overlaps `range`, in ascending order,
    /// with the IOVA range, the vaddr and the pages of the mapping. The caller has locked all of
    /// these mappings.
    ///
    /// # Errors
    ///
    /// The first error of `f`; `f` is not called for the mappings after that.
    pub(crate) fn try_update<E>(
        &mut self,
        range: Range,
        mut f: impl FnMut(Range, Option<Vaddr>, &mut K::Pages) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut taken = self.with(|held| held.take_first(range));
        while let Some((found, vaddr, mut pages)) = taken {
            let done = f(found, vaddr, &mut pages);
            let rest = found.last.checked_add(1).filter(|_| done.is_ok());
            taken = self.with(|held| {
                held.dmas.put_back(found.last, pages);
                let (start, last) = (rest?, range.last);
                (start <= last).then(|| held.take_first(Range { start, last }))?
            });
            done?;
        }
        Ok(())
    }

    /// Like [`try_update`](Self::try_update), but `f` cannot fail.
    pub(crate) fn update(
        &mut self,
        range: Range,
        mut f: impl FnMut(Range, Option<Vaddr>, &mut K::Pages),
    ) {
        let Ok(()) = self.try_update(range, |found, vaddr, pages| {
            f(found, vaddr, pages);
            Ok::<_, Infallible>(())
        });
    }
}

impl<K: Kind> Drop for RangeGuard<'_, K> {
    fn drop(&mut self) {
        let removed = core::mem::take(&mut self.removed);
        self.space
            .leave(self.space.inner.lock(), self.ticket, removed);
    }
}

/// The right to read the mappings in a range, and to record something in them with the mutex held.
pub(crate) struct SharedGuard<'a, K: Kind>(RangeGuard<'a, K>);

impl<K: Kind> SharedGuard<'_, K> {
    /// Calls `f` with the mutex held.
    pub(crate) fn with<R>(&mut self, f: impl FnOnce(&mut Held<'_, K>) -> R) -> R {
        self.0.with(|held| f(held))
    }
}

/// The right to change all mappings and the layout.
pub(crate) struct WholeGuard<'a, K: Kind>(RangeGuard<'a, K>);

impl<'a, K: Kind> Deref for WholeGuard<'a, K> {
    type Target = RangeGuard<'a, K>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<K: Kind> DerefMut for WholeGuard<'_, K> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl<K: Kind> WholeGuard<'_, K> {
    /// Calls `f` on the layout, with the mutex held.
    pub(crate) fn layout<R>(&mut self, f: impl FnOnce(&mut K::Layout) -> R) -> R {
        f(&mut self.0.space.inner.lock().layout)
    }
}
