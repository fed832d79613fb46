// SPDX-License-Identifier: GPL-2.0

//! In the shape of the backend's unmap.rs.

use kernel::prelude::*;

use kernel_ext::iova::Range;

use super::{
    super::space::{
        Held,
        HeldMut,
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

    /// The same for a part of the addresses.
    fn part(&self, range: Range) -> Self {
        Self { range, ..*self }
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

/// How often drivers are asked to give pages back: less than in the kernel, to have less to check.
const ASKED: u32 = 2;

/// How far a request to unmap has come. It is made in steps: what other threads do may come between
/// any two of them.
#[derive(Default)]
pub(crate) struct Progress {
    /// The mappings that are unmapped one by one, after all at once was refused.
    each: Option<Each>,
    /// How often drivers were asked, about all mappings or about the current one.
    asked: u32,
    /// The mapping about which drivers are asked next.
    ask: Option<Range>,
}

/// Mappings that are unmapped one by one.
struct Each {
    /// Where the others are.
    rest: Option<Range>,
    /// The current one.
    dma: Option<Range>,
    /// The sum of the answers.
    sum: u64,
}

impl Container {
    /// Does a step of a request to unmap, after which this has to be called again. Returns how many
    /// addresses were unmapped, or which were dirty, when it is done.
    ///
    /// # Errors
    ///
    /// `EBUSY` if an address is to be invalidated and there are emulated devices, or if the driver
    /// keeps pages; `EINVAL` for a part of a mapping, if an address is to be invalidated twice, or
    /// if no track is kept of dirty pages.
    pub(super) fn unmap(&self, ask: &Ask, progress: &mut Progress) -> Result<Option<u64>> {
        if let Some(dma) = progress.ask {
            let span = progress
                .each
                .as_ref()
                .and_then(|each| each.dma)
                .unwrap_or(ask.range);
            progress.ask = self.ask(dma, span);
            return Ok(None);
        }
        let Some(each) = &mut progress.each else {
            return match self.try_to_unmap(ask)? {
                Ok(answer) => Ok(Some(answer)),
                Err(dma) if progress.asked < ASKED => {
                    progress.asked += 1;
                    progress.ask = Some(dma);
                    Ok(None)
                }
                Err(dma) if dma == ask.range => Err(EBUSY),
                Err(_) => {
                    progress.each = Some(Each {
                        rest: Some(ask.range),
                        dma: None,
                        sum: 0,
                    });
                    Ok(None)
                }
            };
        };
        let Some(dma) = each.dma else {
            let Some(dma) = each
                .rest
                .and_then(|rest| self.space.look().dmas().first_in(rest))
            else {
                return Ok(Some(each.sum));
            };
            if !ask.range.contains(dma) {
                return Err(EINVAL);
            }
            each.dma = Some(dma);
            progress.asked = 0;
            return Ok(None);
        };
        match self.try_to_unmap(&ask.part(dma))? {
            Ok(answer) => {
                each.sum = if ask.dirty {
                    each.sum | answer
                } else {
                    each.sum + answer
                };
                each.rest = behind(dma, ask.range);
                each.dma = None;
            }
            Err(_) if progress.asked == ASKED => return Err(EBUSY),
            Err(dma) => {
                progress.asked += 1;
                progress.ask = Some(dma);
            }
        }
        Ok(None)
    }

    /// Asks drivers about a mapping. Returns the next one in `span` about which to ask.
    fn ask(&self, dma: Range, span: Range) -> Option<Range> {
        self.notify_dma_unmap(dma);
        let mut next = None;
        self.space
            .look()
            .for_each_in(behind(dma, span)?, |found, dma| {
                if span.contains(found) && dma.pages().is_some_and(|pages| pages.pinned() != 0) {
                    next = Some(found);
                }
                next.is_none()
            });
        next
    }

    /// Unmaps all or nothing. Returns a mapping that has pinned pages.
    fn try_to_unmap(&self, ask: &Ask) -> Result<Result<u64, Range>> {
        let locked = if self.v2 { ask.range } else { Range::ALL };
        let (guard, begun) = self
            .space
            .lock(locked, |held| self.begin_unmap(held, ask))?;
        match begun {
            Begun::Done(answer) => Ok(Ok(answer)),
            Begun::Removing { found, first, rest } => {
                Ok(Ok(self.finish_unmap(guard, &found, first, rest, ask)))
            }
            Begun::Pinned(dma) => {
                drop(guard);
                Ok(Err(dma))
            }
        }
    }

    fn begin_unmap(&self, held: &mut HeldMut<'_, Self>, ask: &Ask) -> Result<Begun> {
        if ask.vaddr && held.layout.emulated {
            return Err(EBUSY);
        }
        if ask.dirty && !held.layout.dirty_page_tracking {
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
            match held.remove_one(found.range, |pages| pages.pinned() == 0) {
                Some(only) => (Some(only), None),
                None => held.remove_some(found.range),
            }
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
    fn look(held: &mut HeldMut<'_, Container>, range: Range, v2: bool) -> Self {
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

/// The part of `span` behind the mapping at `dma`.
fn behind(dma: Range, span: Range) -> Option<Range> {
    let start = dma.last.checked_add(1)?;
    (start <= span.last).then_some(Range { start, ..span })
}

/// Checks that `range` has no part of a mapping, but whole ones.
pub(super) fn check_whole(held: &Held<'_, Container>, range: Range) -> Result {
    match held.bisected_by(range) {
        Some(_) => Err(EINVAL),
        None => Ok(()),
    }
}
