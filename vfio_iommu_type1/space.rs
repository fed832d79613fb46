// SPDX-License-Identifier: GPL-2.0

//! A container's address space, and the range lock over it.
//!
//! Each request locks the device addresses that it is about, then checks, works, and makes its result
//! visible. While it holds them nobody else changes a mapping there, so what it has checked stays true,
//! and other requests see all of its effect or nothing. Requests about disjoint addresses go on side
//! by side; those that overlap have their turn in the order in which they came.
//!
//! | Guard | Holds | May |
//! |---|---|---|
//! | [`RangeGuard`] | some addresses, alone | add and remove mappings there, change their pages |
//! | [`SharedGuard`] | some addresses, with other sharers | read mappings; note something in them |
//! | [`WholeGuard`] | all addresses, alone | the same, and change the layout: groups and domains |
//!
//! The queue of the lock, the mappings and the layout are behind one mutex. A request enters the queue,
//! and runs its checks, with that mutex held once. Afterwards it holds the mutex for lookups and
//! insertions only: no memory is pinned, no page table changed, no user memory copied with it. To work
//! on a mapping's pages, the holder of its range takes them out of the tree and puts them back.
//!
//! Waiting happens in one place, `enter`, and whoever waits there holds no addresses, since guards are
//! made nowhere else. A thread holds one guard at a time.

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

/// What an address space is made of.
pub(crate) trait Kind {
    /// What doesn't change while any address is locked.
    type Layout;
    /// What may change whenever the mutex is held.
    type State;
    /// The pages of a mapping.
    type Pages: Pages;
}

/// What the mutex protects.
struct Inner<K: Kind> {
    queue: Queue,
    dmas: DmaTree<K::Pages>,
    layout: K::Layout,
    state: K::State,
}

// Nothing in it is pinned.
impl<K: Kind> Unpin for Inner<K> {}

/// The mappings of a container and its layout, with the lock over them.
#[pin_data]
pub(crate) struct Space<K: Kind> {
    #[pin]
    inner: Mutex<Inner<K>>,
    /// Who waits for a request to leave the queue, by its number.
    #[pin]
    waiting: KeyedWait,
}

impl<K: Kind> Space<K> {
    /// A space without mappings.
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

    /// Looks at everything, without a lock on addresses: what it sees may be out of date once the result
    /// is dropped. Doesn't wait for requests.
    pub(crate) fn look(&self) -> Look<'_, K> {
        Look(self.inner.lock())
    }

    /// Locks `range` alone, and calls `begin` as soon as it is locked, with the mutex held.
    ///
    /// # Errors
    ///
    /// Those of `begin`; then the range is free again.
    pub(crate) fn lock<R, E>(
        &self,
        range: Range,
        begin: impl FnOnce(&mut Alone<'_, K>) -> Result<R, E>,
    ) -> Result<(RangeGuard<'_, K>, R), E> {
        self.enter(|_| range, Mode::Exclusive, |held| begin(&mut Alone(held)))
    }

    /// As [`lock`](Self::lock), of `range` and all of the mappings that have a part of it.
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
        // Larger mappings came while it waited. None is larger than everything.
        drop(widened);
        self.lock(Range::ALL, begin)
    }

    /// Locks `range` together with others that do the same.
    ///
    /// # Errors
    ///
    /// Those of `begin`.
    pub(crate) fn share<R, E>(
        &self,
        range: Range,
        begin: impl FnOnce(&mut Held<'_, K>) -> Result<R, E>,
    ) -> Result<(SharedGuard<'_, K>, R), E> {
        let (guard, begun) = self.enter(|_| range, Mode::Shared, |mut held| begin(&mut held))?;
        Ok((SharedGuard(guard), begun))
    }

    /// Locks everything, alone.
    ///
    /// # Errors
    ///
    /// Those of `begin`.
    pub(crate) fn try_lock_all<E>(
        &self,
        begin: impl FnOnce(&mut Alone<'_, K>) -> Result<(), E>,
    ) -> Result<WholeGuard<'_, K>, E> {
        let (guard, ()) = self.lock(Range::ALL, begin)?;
        Ok(WholeGuard(guard))
    }

    /// Locks everything, alone, without a condition.
    pub(crate) fn lock_all(&self) -> WholeGuard<'_, K> {
        let Ok(guard) = self.try_lock_all(|_| Ok::<_, Infallible>(()));
        guard
    }

    /// Enters the queue with a range that depends on the mappings at that time, waits for its turn, and
    /// calls `begin`.
    fn enter<R, E>(
        &self,
        range: impl Fn(&DmaTree<K::Pages>) -> Range,
        mode: Mode,
        begin: impl FnOnce(Held<'_, K>) -> Result<R, E>,
    ) -> Result<(RangeGuard<'_, K>, R), E> {
        let mut inner = self.inner.lock();
        let (range, ticket) = loop {
            let range = range(&inner.dmas);
            match inner.queue.enter(range, mode) {
                Ok(ticket) => break (range, ticket),
                Err(other) => inner = self.waiting.wait(other.number(), inner),
            }
        };
        while let Some(blocker) = inner.queue.blocker_of(ticket) {
            inner = self.waiting.wait(blocker.number(), inner);
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

    /// Frees the range of a request, lets go of the mutex, and wakes those that waited.
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

/// The mutex of a space, held by somebody who needn't have locked any address.
pub(crate) struct Look<'a, K: Kind>(Guard<'a, Inner<K>, MutexBackend>);

impl<K: Kind> Look<'_, K> {
    /// The layout.
    pub(crate) fn layout(&self) -> &K::Layout {
        &self.0.layout
    }

    /// The state.
    pub(crate) fn state(&mut self) -> &mut K::State {
        &mut self.0.state
    }

    /// How many mappings there are.
    pub(crate) fn mappings(&self) -> usize {
        self.0.dmas.len()
    }

    /// How many requests hold addresses or wait for some.
    pub(crate) fn requests(&self) -> usize {
        self.0.queue.len()
    }

    /// Calls `f` for each mapping in `range`, until it returns `false`.
    pub(crate) fn for_each_in(
        &mut self,
        range: Range,
        f: impl FnMut(Range, &Dma<K::Pages>) -> bool,
    ) {
        self.0.dmas.for_each_in(range, f);
    }
}

/// The mutex of a space, held by somebody who has locked `range`, maybe with others.
///
/// The pages of a mapping are taken out of the tree by somebody only who has locked all of it alone. So
/// those of all mappings that have a part of `range` are in the tree.
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

    /// How many mappings there are, also elsewhere.
    pub(crate) fn mappings(&self) -> usize {
        self.dmas.len()
    }

    /// Whether a mapping has no valid address in the program's memory, also elsewhere.
    pub(crate) fn has_invalid_vaddr(&self) -> bool {
        self.dmas.invalid() != 0
    }

    /// Where the first mapping is that has an address in `range`.
    pub(crate) fn first_in(&self, range: Range) -> Option<Range> {
        self.dmas.first_in(range)
    }

    /// A mapping that `range` has a part of, but not all.
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

    /// Calls `f` for each mapping that has a part of the locked range, from address `start` on, until it
    /// returns `false`.
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

/// The mutex of a space, held by somebody who has locked `range` alone.
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
    /// Sets or invalidates the address in the program's memory of the mappings that begin in `range`. All
    /// of these are locked.
    pub(crate) fn set_vaddr(&mut self, range: Range, vaddr: Option<Vaddr>) {
        self.0.dmas.set_vaddr(range, vaddr);
    }

    /// Enters a mapping that ends with address `last`, in the locked range, in which nothing else is mapped.
    pub(crate) fn insert(&mut self, last: u64, dma: Dma<K::Pages>, memory: Reservation<K::Pages>) {
        self.0.dmas.insert(last, dma, memory);
    }

    /// Removes the first mapping that begins in `range`, and its neighbours that can be unmapped together
    /// with it. Returns their pages, to be dropped without the mutex, and the part of `range` in which
    /// others begin. All of these mappings are locked.
    ///
    /// What was removed counts until the guard goes, so that others see all of it vanish at once.
    pub(crate) fn remove_some(&mut self, range: Range) -> (Option<K::Pages>, Option<Range>) {
        // Then others may have the mutex.
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

    /// Takes the pages of the first mapping out that has a part of `range`. All of it is locked.
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

/// The right to change the mappings in a range; dropping it lets others have their turn.
pub(crate) struct RangeGuard<'a, K: Kind> {
    space: &'a Space<K>,
    ticket: Ticket,
    range: Range,
    removed: Removed,
}

impl<K: Kind> RangeGuard<'_, K> {
    /// The addresses that are locked.
    pub(crate) fn range(&self) -> Range {
        self.range
    }

    /// Calls `f` with the mutex held.
    pub(crate) fn with<R>(&mut self, f: impl FnOnce(&mut Alone<'_, K>) -> R) -> R {
        let mut inner = self.space.inner.lock();
        let held = Held::new(&mut inner, self.range, &mut self.removed);
        f(&mut Alone(held))
    }

    /// As [`with`](Self::with), and frees the range with the mutex still held.
    pub(crate) fn finish<R>(self, f: impl FnOnce(&mut Alone<'_, K>) -> R) -> R {
        let finished = self.try_finish(|held| Ok::<_, Infallible>(f(held)));
        match finished {
            Ok(result) => result,
            Err((_, never)) => match never {},
        }
    }

    /// As [`finish`](Self::finish), with work that can fail.
    ///
    /// # Errors
    ///
    /// Those of `f`, with the guard: then the range stays locked.
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

    /// Calls `f` for each mapping that has a part of `range`, in order, without the mutex: with its
    /// addresses, the address in the program's memory, and the pages. All of these mappings are locked.
    ///
    /// # Errors
    ///
    /// The first that `f` returned; then it wasn't called for the mappings after that one.
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

    /// As [`try_update`](Self::try_update), with work that can't fail.
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

/// The right to read the mappings in a range, and to note something in them with the mutex held.
pub(crate) struct SharedGuard<'a, K: Kind>(RangeGuard<'a, K>);

impl<K: Kind> SharedGuard<'_, K> {
    /// Calls `f` with the mutex held.
    pub(crate) fn with<R>(&mut self, f: impl FnOnce(&mut Held<'_, K>) -> R) -> R {
        self.0.with(|held| f(held))
    }
}

/// The right to change everything.
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
    /// Calls `f` with the mutex held, with the layout.
    pub(crate) fn layout<R>(&mut self, f: impl FnOnce(&mut K::Layout) -> R) -> R {
        f(&mut self.0.space.inner.lock().layout)
    }
}
