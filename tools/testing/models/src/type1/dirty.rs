// SPDX-License-Identifier: GPL-2.0

//! In the shape of the backend's dirty.rs.

use std::convert::Infallible;

use kernel::prelude::*;

use kernel_ext::iova::Range;

use super::{
    super::space::RangeGuard,
    pages::bits,
    unmap::check_whole,
    Answer,
    Container, //
};

impl Container {
    /// Which pages in `range` are dirty. A mapping at a time, as user memory is written in between.
    pub(super) fn dirty_in(&self, guard: &mut RangeGuard<'_, Self>, range: Range) -> u64 {
        let mut dirty = 0;
        let mut next = Some(range.start);
        while let Some(start) = next {
            next = guard.with(|held| {
                let all = held.layout.translated && !*held.mutex_data;
                let mut end = None;
                held.for_each_from(start, |found, dma| {
                    if found.start > range.last {
                        return false;
                    }
                    if !range.contains(found) {
                        self.machine.blame("a report reaches beyond its range");
                    }
                    match dma.pages() {
                        Some(pages) if all => dirty |= bits(pages.range()),
                        Some(pages) => dirty |= pages.dirty(),
                        None => self.machine.blame("a report finds pages away"),
                    }
                    end = Some(found.last);
                    false
                });
                end.filter(|end| *end < range.last).map(|end| end + 1)
            });
        }
        dirty
    }

    /// Tells which pages in `range` are dirty, and begins anew.
    ///
    /// # Errors
    ///
    /// `EINVAL` if no track is kept, or if the range has parts of mappings.
    pub(super) fn report(&self, range: Range) -> Answer {
        let (mut guard, ()) = self.space.lock(range, |held| {
            if !held.layout.dirty_page_tracking {
                return Err(EINVAL);
            }
            check_whole(held, range)
        })?;
        let dirty = self.dirty_in(&mut guard, range);
        guard.update(range, |_, _, pages| pages.set_clean());
        Ok(dirty)
    }

    /// Begins to keep track of dirty pages.
    pub(super) fn start_tracking(&self) -> Answer {
        let mut whole = self.space.lock_all_killable(|held| {
            let mut mappings = 0;
            held.for_each_from(0, |_, _| {
                mappings += 1;
                true
            });
            if mappings != held.dmas().len() {
                self.machine.blame("mappings go while all are locked");
            }
            Ok::<_, Error>(())
        })?;
        whole.try_update(Range::ALL, |found, _, pages| {
            self.machine.read(found);
            pages.reserve_dirty();
            Ok::<_, Error>(())
        })?;
        whole.layout(|layout| layout.dirty_page_tracking = true);
        Ok(0)
    }

    /// Forgets which pages are dirty, and keeps no track any more.
    pub(super) fn stop_tracking(&self) -> Answer {
        let mut whole = self.space.lock_all();
        whole.layout(|layout| layout.dirty_page_tracking = false);
        whole.update(Range::ALL, |found, _, pages| {
            self.machine.read(found);
            pages.stop_tracking();
        });
        Ok(0)
    }

    /// Copies from what is mapped.
    ///
    /// # Errors
    ///
    /// `EBUSY` while an address is invalid, `EINVAL` where nothing is mapped.
    pub(super) fn read(&self, range: Range) -> Answer {
        let (mut guard, ()) = self
            .space
            .share(range, |held| Self::check_vaddrs_valid(held))?;
        let mut next = range.start;
        while next <= range.last {
            let found = guard.with(|held| {
                let mut found = None;
                held.for_each_from(next, |mapping, dma| {
                    let parts = dma.vaddr().zip(dma.pages());
                    found = parts.map(|_| mapping).filter(|at| at.start <= next);
                    false
                });
                found
            });
            let found = found.ok_or(EINVAL)?;
            self.machine.read(Range {
                start: next,
                last: found.last.min(range.last),
            });
            next = found.last + 1;
        }
        Ok(0)
    }

    /// Copies to what is mapped.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
    pub(super) fn write(&self, range: Range) -> Answer {
        let (mut guard, tracks) = self.space.lock_mappings(range, |held| {
            Self::check_vaddrs_valid(held)?;
            Ok::<_, Error>(held.layout.dirty_page_tracking)
        })?;
        let mut next = range.start;
        guard.try_update(range, |found, vaddr, pages| {
            vaddr.filter(|_| found.start <= next).ok_or(EINVAL)?;
            self.machine.read(found);
            if tracks {
                pages.add_dirty(range);
            }
            next = found.last + 1;
            Ok::<_, Error>(())
        })?;
        if next <= range.last {
            return Err(EINVAL);
        }
        Ok(0)
    }

    /// Takes one user off the pages of `range` that are mapped.
    pub(super) fn unpin(&self, range: Range) {
        let Ok((mut guard, tracks)) = self.space.lock_mappings(range, |held| {
            Ok::<_, Infallible>(held.layout.dirty_page_tracking)
        });
        Self::unpin_in(&mut guard, range, tracks);
    }
}
