// SPDX-License-Identifier: GPL-2.0

//! In the shape of the backend's unmap.rs.

use iommu_group::ranges::Range;

use kernel::prelude::*;

use super::{
    super::space::{
        Alone,
        Held,
        RangeGuard, //
    },
    pages::DmaPages,
    Container, //
};

/// A request to unmap.
pub(super) struct Ask {
    range: Range,
    vaddr: bool,
    dirty: bool,
}

impl Ask {
    /// To unmap `range`.
    pub(super) fn of(range: Range) -> Self {
        Self {
            range,
            vaddr: false,
            dirty: false,
        }
    }

    /// To unmap everything.
    pub(super) fn all() -> Self {
        Self::of(Range::ALL)
    }

    /// To invalidate the addresses in the program's memory.
    pub(super) fn vaddr_of(range: Range) -> Self {
        Self {
            vaddr: true,
            ..Self::of(range)
        }
    }

    /// To unmap `range`, and tell which pages are dirty.
    pub(super) fn dirty_of(range: Range) -> Self {
        Self {
            dirty: true,
            ..Self::of(range)
        }
    }
}

/// How often drivers are asked to give pages back.
#[derive(Default)]
pub(crate) struct Patience {
    /// The end of the last mapping that was new to them.
    furthest: Option<u64>,
    asked: u32,
}

impl Patience {
    /// How often they are asked about one mapping: less than in the kernel, to have less to check.
    const MOST: u32 = 2;

    fn is_exhausted(&mut self, dma: Range) -> bool {
        if self.furthest.is_none_or(|furthest| furthest < dma.last) {
            self.furthest = Some(dma.last);
            self.asked = 0;
        }
        self.asked += 1;
        self.asked > Self::MOST
    }
}

impl Container {
    /// Unmaps, or asks a driver to give pages back, after which this has to be called again. Returns how many
    /// addresses were unmapped, or which were dirty.
    ///
    /// # Errors
    ///
    /// `EBUSY` if an address is to be invalidated and there are emulated devices, or if the driver keeps
    /// pages; `EINVAL` for a part of a mapping, if an address is to be invalidated twice, or if no track
    /// is kept of dirty pages.
    pub(super) fn unmap(&self, ask: &Ask, patience: &mut Patience) -> Result<Option<u64>> {
        let locked = if self.v2 { ask.range } else { Range::ALL };
        let (guard, begun) = self
            .space
            .lock(locked, |held| self.begin_unmap(held, ask))?;
        match begun {
            Begun::Done(answer) => Ok(Some(answer)),
            Begun::Removing { found, first, rest } => {
                Ok(Some(self.finish_unmap(guard, &found, first, rest, ask)))
            }
            Begun::Pinned(dma) => {
                drop(guard);
                if patience.is_exhausted(dma) {
                    return Err(EBUSY);
                }
                self.notify(dma);
                Ok(None)
            }
        }
    }

    fn begin_unmap(&self, held: &mut Alone<'_, Self>, ask: &Ask) -> Result<Begun> {
        if ask.vaddr && held.layout.emulated {
            return Err(EBUSY);
        }
        if ask.dirty && !held.layout.tracks_dirty {
            return Err(EINVAL);
        }
        let found = Found::look(held, ask.range, self.v2);
        if found.cuts {
            return Err(EINVAL);
        }
        if ask.vaddr {
            if found.invalid {
                return Err(EINVAL);
            }
            if found.any {
                held.set_vaddr(found.range, None);
            }
            return Ok(Begun::Done(found.size));
        }
        if let Some(pinned) = found.pinned {
            return Ok(Begun::Pinned(pinned));
        }
        if !found.any {
            return Ok(Begun::Done(0));
        }
        let (first, rest) = if ask.dirty {
            (None, Some(found.range))
        } else {
            held.remove_some(found.range)
        };
        Ok(Begun::Removing { found, first, rest })
    }

    fn finish_unmap(
        &self,
        mut guard: RangeGuard<'_, Self>,
        found: &Found,
        first: Option<DmaPages>,
        mut rest: Option<Range>,
        ask: &Ask,
    ) -> u64 {
        let dirty = ask.dirty.then(|| self.dirty_in(&mut guard, found.range));
        drop(first);
        while let Some(range) = rest {
            let (pages, others) = guard.with(|held| held.remove_some(range));
            rest = others;
            if pages.as_ref().is_some_and(|pages| pages.pinned() != 0) {
                self.machine.blame("pinned pages are unmapped");
            }
        }
        dirty.unwrap_or(found.size)
    }
}

/// How far a request has come when its addresses are locked.
enum Begun {
    /// It is done.
    Done(u64),
    /// A driver has pinned pages of this mapping.
    Pinned(Range),
    /// Mappings are to be removed, which the pages of the first ones were taken out of.
    Removing {
        found: Found,
        first: Option<DmaPages>,
        rest: Option<Range>,
    },
}

/// The mappings that a request is about.
struct Found {
    range: Range,
    any: bool,
    size: u64,
    pinned: Option<Range>,
    invalid: bool,
    cuts: bool,
}

impl Found {
    fn look(held: &mut Alone<'_, Container>, range: Range, v2: bool) -> Self {
        let mut all = Self {
            range,
            any: false,
            size: 0,
            pinned: None,
            invalid: false,
            cuts: false,
        };
        held.for_each_from(range.start, |found, dma| {
            if found.start > range.last || !v2 && found.start < range.start {
                return false;
            }
            if v2 && !range.contains(found) {
                all.cuts = true;
                return false;
            }
            all.any = true;
            all.size += found.last - found.start + 1;
            all.invalid |= dma.vaddr().is_none();
            if dma.pages().is_some_and(|pages| pages.pinned() != 0) {
                all.pinned.get_or_insert(found);
            }
            true
        });
        all
    }
}

/// Checks that `range` has no part of a mapping, but whole ones.
pub(super) fn check_whole(held: &Held<'_, Container>, range: Range) -> Result {
    match held.cut_by(range) {
        Some(_) => Err(EINVAL),
        None => Ok(()),
    }
}
