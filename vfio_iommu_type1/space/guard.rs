// SPDX-License-Identifier: GPL-2.0

//! The guards of the range lock, and the access that they give.
//!
//! A guard locks a range until it is dropped. To access the mappings, its owner locks the mutex
//! too: [`Held`] and [`HeldMut`] stand for both locks, [`Look`] for the mutex alone.

use core::{
    convert::Infallible,
    ops::{
        Deref,
        DerefMut, //
    },
};

use kernel::sync::lock::{
    mutex::MutexBackend,
    Guard, //
};

use kernel_ext::iova::Range;

use super::{
    dmas::Removed,
    queue::Ticket,
    Dma,
    DmaTree,
    Inner,
    Pages,
    Reservation,
    Space,
    SpaceTypes,
    Vaddr, //
};

/// The mutex of an address space, held by a thread that need not have locked any address.
pub(crate) struct Look<'a, K: SpaceTypes>(pub(super) Guard<'a, Inner<K>, MutexBackend>);

impl<K: SpaceTypes> Look<'_, K> {
    /// Returns the layout.
    pub(crate) fn layout(&self) -> &K::Layout {
        &self.0.layout
    }

    /// Returns the data that may change whenever the mutex is held.
    pub(crate) fn mutex_data(&mut self) -> &mut K::MutexData {
        &mut self.0.mutex_data
    }

    /// Returns the mappings of the whole container.
    pub(crate) fn dmas(&self) -> &DmaTree<K::Pages> {
        &self.0.dmas
    }

    /// Returns the number of requests that hold a range or wait for one.
    pub(crate) fn requests(&self) -> usize {
        self.0.queue.len()
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
pub(crate) struct Held<'a, K: SpaceTypes> {
    pub(super) range: Range,
    pub(super) dmas: &'a mut DmaTree<K::Pages>,
    removed: &'a mut Removed,
    /// The layout.
    pub(crate) layout: &'a K::Layout,
    /// The data that may change whenever the mutex is held.
    pub(crate) mutex_data: &'a mut K::MutexData,
}

impl<'a, K: SpaceTypes> Held<'a, K> {
    pub(super) fn new(inner: &'a mut Inner<K>, range: Range, removed: &'a mut Removed) -> Self {
        Self {
            range,
            dmas: &mut inner.dmas,
            removed,
            layout: &inner.layout,
            mutex_data: &mut inner.mutex_data,
        }
    }

    /// Returns the locked range, which the models compare with the mappings in it.
    #[cfg(not(MODULE))]
    pub(crate) fn range(&self) -> Range {
        self.range
    }

    /// Returns the mappings of the whole container. Only those in the locked range stay the same
    /// when the mutex is released.
    pub(crate) fn dmas(&self) -> &DmaTree<K::Pages> {
        self.dmas
    }

    /// Returns a mapping that overlaps `range` but is not contained in it.
    pub(crate) fn bisected_by(&self, range: Range) -> Option<Range> {
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

    /// Calls `f` for each mapping that overlaps the locked range, beginning at iova `start`, until
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
pub(crate) struct HeldMut<'a, K: SpaceTypes>(pub(super) Held<'a, K>);

impl<'a, K: SpaceTypes> Deref for HeldMut<'a, K> {
    type Target = Held<'a, K>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<K: SpaceTypes> DerefMut for HeldMut<'_, K> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl<K: SpaceTypes> HeldMut<'_, K> {
    /// Sets or invalidates the vaddr of each mapping that begins in `range`. The caller has locked
    /// all of these mappings.
    pub(crate) fn set_vaddr(&mut self, range: Range, vaddr: Option<Vaddr>) {
        self.0.dmas.set_vaddr(range, vaddr);
    }

    /// Removes the mapping at exactly `range` if there is one and `condition` holds for its pages.
    /// Returns the pages, which the caller drops without the mutex. The mapping is counted as in
    /// [`remove_some`](Self::remove_some).
    pub(crate) fn remove_one(
        &mut self,
        range: Range,
        condition: impl FnOnce(&K::Pages) -> bool,
    ) -> Option<K::Pages> {
        let Held { dmas, removed, .. } = &mut self.0;
        dmas.remove_one(range, removed, condition)
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

/// An exclusively locked range. Its holder may change the mappings in it. Dropping it unlocks the
/// range. If `WHOLE` is true, the range is [`Range::ALL`].
pub(crate) struct RangeGuard<'a, K: SpaceTypes, const WHOLE: bool = false> {
    pub(super) space: &'a Space<K>,
    pub(super) ticket: Ticket,
    pub(super) range: Range,
    pub(super) removed: Removed,
}

impl<K: SpaceTypes, const WHOLE: bool> RangeGuard<'_, K, WHOLE> {
    /// Calls `f` with the mutex held.
    pub(crate) fn with<R>(&mut self, f: impl FnOnce(&mut HeldMut<'_, K>) -> R) -> R {
        let mut inner = self.space.inner.lock();
        let held = Held::new(&mut inner, self.range, &mut self.removed);
        f(&mut HeldMut(held))
    }

    /// Like [`with`](Self::with), but also unlocks the range before the mutex is released.
    pub(crate) fn finish<R>(self, f: impl FnOnce(&mut HeldMut<'_, K>) -> R) -> R {
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
        f: impl FnOnce(&mut HeldMut<'_, K>) -> Result<R, E>,
    ) -> Result<R, (Self, E)> {
        let space = self.space;
        let mut inner = space.inner.lock();
        let held = Held::new(&mut inner, self.range, &mut self.removed);
        match f(&mut HeldMut(held)) {
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
    /// with the iova range, the vaddr and the pages of the mapping. The caller has locked all of
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

impl<K: SpaceTypes, const WHOLE: bool> Drop for RangeGuard<'_, K, WHOLE> {
    fn drop(&mut self) {
        let removed = core::mem::take(&mut self.removed);
        self.space
            .leave(self.space.inner.lock(), self.ticket, removed);
    }
}

/// An exclusively locked range in which a mapping is to be inserted. Dropping it unlocks the range.
///
/// # Invariants
///
/// Nothing is mapped in `range`, which `guard` has locked.
pub(crate) struct Vacant<'a, K: SpaceTypes> {
    pub(super) guard: RangeGuard<'a, K>,
    pub(super) range: Range,
}

impl<K: SpaceTypes> Vacant<'_, K> {
    /// Returns the number of bytes of the mapping.
    pub(crate) fn size(&self) -> u64 {
        self.range.last - self.range.start + 1
    }

    /// Inserts a mapping of `pages`, unless there are `limit` mappings, and unlocks the range.
    /// Otherwise drops `pages` before that. Returns whether the mapping was inserted.
    pub(crate) fn insert(
        self,
        vaddr: Vaddr,
        pages: K::Pages,
        memory: Reservation<K::Pages>,
        limit: usize,
    ) -> bool {
        let Self { guard, range } = self;
        let dma = Dma::new(vaddr, pages);
        let inserted = guard.try_finish(|held| {
            if held.dmas().len() >= limit {
                return Err(dma);
            }
            held.0.dmas.insert(range.last, dma, memory);
            Ok(())
        });
        let Err((guard, dma)) = inserted else {
            return true;
        };
        drop(dma);
        drop(guard);
        false
    }
}

/// The right to read the mappings in a range, and to record something in them with the mutex held.
pub(crate) struct SharedGuard<'a, K: SpaceTypes>(pub(super) RangeGuard<'a, K>);

impl<K: SpaceTypes> SharedGuard<'_, K> {
    /// Calls `f` with the mutex held.
    pub(crate) fn with<R>(&mut self, f: impl FnOnce(&mut Held<'_, K>) -> R) -> R {
        self.0.with(|held| f(held))
    }
}

/// All addresses, exclusively locked. Its holder may change all mappings and the layout.
pub(crate) type WholeGuard<'a, K> = RangeGuard<'a, K, true>;

impl<K: SpaceTypes> WholeGuard<'_, K> {
    /// Calls `f` on the layout, with the mutex held.
    pub(crate) fn layout<R>(&mut self, f: impl FnOnce(&mut K::Layout) -> R) -> R {
        f(&mut self.space.inner.lock().layout)
    }
}
