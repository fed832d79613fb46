// SPDX-License-Identifier: GPL-2.0

//! Groups that join and leave, SET_IOMMU, and the driver's device.

use super::{
    Container,
    Dma,
    Outcome,
    Ranges,
    State,
    Type1,
    unmap::give_back, //
};
use crate::{
    defects::Rules,
    op::Group, //
};
use vfio_client::Errno;

/// The errors that an IOMMU may return for an address that it cannot map.
const UNMAPPABLE: [Errno; 4] = [Errno::EINVAL, Errno::EFAULT, Errno::ERANGE, Errno::ENOMEM];

impl State {
    /// Records that a group joined.
    pub fn enter(&mut self, group: Group) {
        self.joined[group as usize] = true;
        let Some(type1) = self.type1.as_mut().filter(|_| group != Group::Emulated) else {
            return;
        };
        type1.ranges = Ranges::Physical;
        for dma in &mut type1.dmas {
            dma.device.get_or_insert(dma.vaddr);
        }
    }
}

impl Container {
    pub(super) fn set_iommu(&self, state: &mut State, version: u32, limit: u32) -> Outcome {
        if state.type1.is_some() || state.joined == [false; 3] {
            return Outcome::error(Errno::EINVAL);
        }
        if !matches!(version, 1 | 3) {
            return Outcome::error(Errno::ENODEV);
        }
        let ranges = match state.physical() {
            0 => Ranges::Unknown,
            _ => Ranges::Physical,
        };
        state.type1 = Some(Type1 {
            v2: version == 3,
            avail: limit,
            dmas: Vec::new(),
            tracks: false,
            ranges,
        });
        Outcome::ok()
    }

    pub(super) fn join(&self, state: &mut State, process: u8, group: Group) -> Outcome {
        if state.joined[group as usize] {
            return Outcome::error(Errno::EINVAL);
        }
        let is_first = state.physical() == 0;
        if let Some(type1) = &state.type1 {
            if type1.dmas.iter().any(|dma| dma.vaddr_invalid) {
                return Outcome::error(Errno::EBUSY);
            }
            if group != Group::Emulated {
                let reasons = self.attach_failures(type1, process, is_first);
                if !reasons.is_empty() {
                    return Outcome::Fails(reasons);
                }
            }
        }
        state.enter(group);
        Outcome::ok()
    }

    /// Returns the errors with which the existing mappings can fail for another group.
    fn attach_failures(&self, type1: &Type1, process: u8, is_first: bool) -> Vec<Errno> {
        let mut reasons = Vec::new();
        if type1
            .dmas
            .iter()
            .any(|dma| !self.is_in_aperture(dma.iova, dma.last()))
        {
            reasons.extend(UNMAPPABLE);
        }
        if !is_first {
            return reasons;
        }
        if type1
            .dmas
            .iter()
            .any(|dma| !self.is_present(dma.vaddr, dma.size))
        {
            reasons.push(Errno::EFAULT);
        }
        for owner in 0..2 {
            let own = type1.dmas.iter().filter(|dma| dma.owner == owner);
            let pages = own.map(Dma::pages).fold(0, u64::saturating_add);
            let more = pages.saturating_sub(type1.locked(owner));
            if self.is_too_much(type1, owner, more) {
                reasons.push(Errno::ENOMEM);
            }
        }
        if self.rules == Rules::Strict && type1.dmas.iter().any(|dma| dma.owner != process) {
            reasons.push(Errno::EPERM);
        }
        reasons
    }

    pub(super) fn leave(&self, state: &mut State, group: Group) -> Outcome {
        if !state.joined[group as usize] {
            return Outcome::error(Errno::EINVAL);
        }
        if group == Group::Emulated && state.open > 0 {
            return Outcome::error(Errno::EBUSY);
        }
        state.joined[group as usize] = false;
        if state.joined == [false; 3] {
            state.type1 = None;
        }
        let is_last = state.physical() == 0;
        let Some(type1) = state.type1.as_mut().filter(|_| group != Group::Emulated) else {
            return Outcome::ok();
        };
        // It is no longer known which pages the devices wrote.
        type1.dmas.iter_mut().for_each(Dma::mark_all);
        if is_last {
            type1.ranges = Ranges::All;
            type1.dmas.iter_mut().for_each(|dma| dma.device = None);
        }
        Outcome::ok()
    }

    pub(super) fn open(&self, state: &mut State) -> Outcome {
        if !state.has_emulated() || state.type1.is_none() {
            return Outcome::error(Errno::EINVAL);
        }
        state.open += 1;
        Outcome::ok()
    }

    /// The last close completes once the driver has unpinned all pages.
    pub(super) fn close(&self, state: &mut State) -> Outcome {
        if state.open == 1 {
            while give_back(state, 0, u64::MAX) {}
        }
        state.open = state.open.saturating_sub(1);
        Outcome::ok()
    }

    /// Returns the state after the driver unpins one page during the last close, if it has any.
    pub(super) fn close_step(&self, state: &State) -> Option<State> {
        let mut next = state.clone();
        (state.open == 1 && give_back(&mut next, 0, u64::MAX)).then_some(next)
    }
}
