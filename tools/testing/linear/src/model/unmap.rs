// SPDX-License-Identifier: GPL-2.0

//! UNMAP_DMA.

use super::{
    Container,
    Local,
    Outcome,
    State,
    Type1, //
};
use crate::{
    defects::Rules,
    op::{
        Answer,
        Bitmap,
        Call,
        Op,
        PAGE,
        unmap, //
    },
};
use std::ops::Range;
use vfio_client::Errno;

/// The arguments of an unmap.
#[derive(Clone, Copy)]
struct Unmap {
    flags: u32,
    iova: u64,
    size: u64,
    bitmap: Option<Bitmap>,
}

impl Unmap {
    fn of(call: &Call) -> Option<Self> {
        match call.op {
            Op::Unmap {
                flags,
                iova,
                size,
                bitmap,
            } => Some(Self {
                flags,
                iova,
                size,
                bitmap,
            }),
            _ => None,
        }
    }

    fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Checks everything except the mappings, and returns the last address.
    fn check(&self, state: &State) -> Result<u64, Errno> {
        let type1 = state.type1.as_ref().ok_or(Errno::EINVAL)?;
        let known = unmap::DIRTY | unmap::ALL | unmap::VADDR;
        let dirty = self.has(unmap::DIRTY);
        if self.flags & !known != 0 || dirty && self.has(unmap::ALL | unmap::VADDR) {
            return Err(Errno::EINVAL);
        }
        if dirty {
            self.bitmap.ok_or(Errno::EINVAL)?.check(self.size)?;
        }
        if self.has(unmap::VADDR) && state.has_emulated() {
            return Err(Errno::EBUSY);
        }
        if self.iova % PAGE != 0 {
            return Err(Errno::EINVAL);
        }
        let last = if self.has(unmap::ALL) {
            if self.iova != 0 || self.size != 0 {
                return Err(Errno::EINVAL);
            }
            u64::MAX
        } else {
            if self.size == 0 || self.size % PAGE != 0 {
                return Err(Errno::EINVAL);
            }
            self.iova
                .checked_add(self.size - 1)
                .ok_or(Errno::EOVERFLOW)?
        };
        if dirty && (!type1.tracks || self.bitmap.is_some_and(|b| b.pgsize != PAGE)) {
            return Err(Errno::EINVAL);
        }
        Ok(last)
    }

    /// Returns whether the range splits a mapping, which version 2 rejects.
    fn is_cut(&self, type1: &Type1, last: u64) -> bool {
        type1.v2 && !self.has(unmap::ALL) && type1.is_cut(self.iova, last)
    }

    /// Returns the indexes of the mappings to unmap.
    fn selected(&self, type1: &Type1, last: u64) -> Range<usize> {
        let found = type1.within(self.iova, last);
        // Version 1 stops at a mapping that starts before the range.
        let begins_before =
            |found: &Range<usize>| !found.is_empty() && type1.dmas[found.start].iova < self.iova;
        if !type1.v2 && begins_before(&found) {
            return found.start..found.start;
        }
        found
    }
}

impl Container {
    /// Executes an unmap in one step.
    pub(super) fn unmap(&self, state: &mut State, call: &Call) -> Outcome {
        let Some(unmap) = Unmap::of(call) else {
            return Outcome::error(Errno::EINVAL);
        };
        let last = match unmap.check(state) {
            Ok(last) => last,
            Err(errno) => return Outcome::error(errno),
        };
        let full = state.physical() > 0;
        let Some(type1) = &mut state.type1 else {
            return Outcome::error(Errno::EINVAL);
        };
        if unmap.is_cut(type1, last) {
            return Outcome::error(Errno::EINVAL);
        }
        let selected = unmap.selected(type1, last);
        if unmap.has(unmap::VADDR) {
            return invalidate(type1, selected);
        }
        let mut local = Local::default();
        match self.remove(type1, &unmap, selected, full, &mut local) {
            Ok(()) => finished(local),
            Err(errno) => Outcome::error(errno),
        }
    }

    /// Removes mappings that have no pinned pages.
    fn remove(
        &self,
        type1: &mut Type1,
        unmap: &Unmap,
        selected: Range<usize>,
        full: bool,
        local: &mut Local,
    ) -> Result<(), Errno> {
        if let Some(bitmap) = unmap.bitmap.filter(|_| unmap.has(unmap::DIRTY)) {
            if local.words.is_empty() {
                local.words = bitmap.words();
            }
            for dma in &mut type1.dmas[selected.clone()] {
                dma.report(unmap.iova, &mut local.words, full, self.rules)?;
            }
        }
        for dma in type1.dmas.drain(selected) {
            local.unmapped = local.unmapped.wrapping_add(dma.size);
            type1.avail += 1;
        }
        Ok(())
    }

    /// Returns all possible next steps of an unmap.
    pub(super) fn unmap_steps(
        &self,
        state: &State,
        call: &Call,
        local: &Local,
        answer: Option<&Answer>,
    ) -> Vec<(State, Option<Local>)> {
        let Some(unmap) = Unmap::of(call) else {
            return Vec::new();
        };
        let pinned = first_pinned(state, &unmap);
        if self.rules == Rules::C {
            if local.begun || pinned.is_some() {
                return self.unmap_steps_of_c(state, &unmap, local, answer);
            }
        } else if let Some((dma, _)) = pinned {
            // Drivers unpin pages one by one before the unmap, whatever its result is.
            let mut next = state.clone();
            give_back(&mut next, dma, dma);
            return vec![(next, Some(local.clone()))];
        }
        let mut next = state.clone();
        let outcome = self.apply(&mut next, call);
        if answer.is_none_or(|answer| outcome.allows(answer)) {
            return vec![(next, None)];
        }
        Vec::new()
    }

    /// C removes mappings up to the first one with pinned pages, lets drivers unpin them without
    /// holding a lock, and starts again.
    fn unmap_steps_of_c(
        &self,
        state: &State,
        unmap: &Unmap,
        local: &Local,
        answer: Option<&Answer>,
    ) -> Vec<(State, Option<Local>)> {
        let mut steps = Vec::new();
        if let Some((first, last)) = local.notified {
            let mut next = state.clone();
            if give_back(&mut next, first, last) {
                steps.push((next, Some(local.clone())));
            }
        }
        let last = if unmap.has(unmap::ALL) {
            u64::MAX
        } else {
            unmap.iova.wrapping_add(unmap.size.wrapping_sub(1))
        };
        let mut next = state.clone();
        let full = state.physical() > 0;
        let Some(type1) = &mut next.type1 else {
            return steps;
        };
        let mut local = Local {
            begun: true,
            notified: None,
            ..local.clone()
        };
        let outcome = if unmap.is_cut(type1, last) {
            finished(local)
        } else {
            let selected = unmap.selected(type1, last);
            let pinned = selected.clone().find(|i| !type1.dmas[*i].pins.is_empty());
            let notified = pinned.map(|i| (type1.dmas[i].iova, type1.dmas[i].last()));
            let up_to = selected.start..pinned.unwrap_or(selected.end);
            match self.remove(type1, unmap, up_to, full, &mut local) {
                Err(errno) => Outcome::error(errno),
                Ok(()) if notified.is_some() => {
                    local.notified = notified;
                    steps.push((next, Some(local)));
                    return steps;
                }
                Ok(()) => finished(local),
            }
        };
        if answer.is_none_or(|answer| outcome.allows(answer)) {
            steps.push((next, None));
        }
        steps
    }
}

fn finished(local: Local) -> Outcome {
    let mut numbers = vec![local.unmapped];
    numbers.extend(local.words);
    Outcome::Is(Ok(numbers))
}

fn invalidate(type1: &mut Type1, selected: Range<usize>) -> Outcome {
    let selected = &mut type1.dmas[selected];
    if selected.iter().any(|dma| dma.vaddr_invalid) {
        return Outcome::error(Errno::EINVAL);
    }
    let mut size = 0u64;
    for dma in selected {
        dma.vaddr_invalid = true;
        size = size.wrapping_add(dma.size);
    }
    Outcome::value(size)
}

/// Returns the first page that a driver has to unpin: its address, and the last address of its
/// mapping.
fn first_pinned(state: &State, unmap: &Unmap) -> Option<(u64, u64)> {
    let last = unmap.check(state).ok()?;
    let type1 = state.type1.as_ref()?;
    if unmap.has(unmap::VADDR) || unmap.is_cut(type1, last) {
        return None;
    }
    let mut selected = type1.dmas[unmap.selected(type1, last)].iter();
    selected.find_map(|dma| Some((dma.iova + dma.pins.first()? * PAGE, dma.last())))
}

/// Unpins the first page that a driver has pinned in a range. Returns whether there was one.
pub(super) fn give_back(state: &mut State, first: u64, last: u64) -> bool {
    let dmas = state.type1.iter_mut().flat_map(|type1| &mut type1.dmas);
    for dma in dmas {
        let iova = dma.iova;
        let in_range = |page: &u64| (first..=last).contains(&(iova + page * PAGE));
        if let Some(index) = dma.pins.iter().position(in_range) {
            dma.pins.remove(index);
            return true;
        }
    }
    false
}
