// SPDX-License-Identifier: GPL-2.0

//! MAP_DMA.

use super::{
    Container,
    Dma,
    Outcome,
    Ranges,
    State,
    Type1, //
};
use crate::op::{
    PAGE,
    map, //
};
use vfio_client::Errno;

/// The maximum number of pages of a mapping whose dirty pages can be tracked.
pub(super) const MOST_TRACKED: u64 = i32::MAX as u64;

impl Container {
    pub(super) fn map(
        &self,
        state: &mut State,
        process: u8,
        flags: u32,
        vaddr: u64,
        iova: u64,
        size: u64,
    ) -> Outcome {
        let physical = state.physical() > 0;
        let Some(type1) = &mut state.type1 else {
            return Outcome::error(Errno::EINVAL);
        };
        let last = match check(flags, vaddr, iova, size) {
            Ok(last) => last,
            Err(errno) => return Outcome::error(errno),
        };
        let found = type1.within(iova, last);
        if flags & map::VADDR != 0 {
            let exact = found.clone().find(|i| {
                let dma = &type1.dmas[*i];
                dma.vaddr_invalid && dma.iova == iova && dma.size == size
            });
            return match exact {
                _ if found.is_empty() => Outcome::error(Errno::ENOENT),
                None => Outcome::error(Errno::EINVAL),
                Some(index) => self.update_vaddr(type1, process, index, vaddr),
            };
        }
        if !found.is_empty() {
            return Outcome::error(Errno::EEXIST);
        }
        if type1.avail == 0 {
            return Outcome::error(Errno::ENOSPC);
        }
        if !self.is_mappable(type1, iova, last) {
            return Outcome::error(Errno::EINVAL);
        }
        let reasons = match physical {
            true => self.pin_failures(type1, process, vaddr, size),
            false => Vec::new(),
        };
        if !reasons.is_empty() {
            return Outcome::Fails(reasons);
        }
        if type1.tracks && size / PAGE > MOST_TRACKED {
            return Outcome::error(Errno::EINVAL);
        }
        let mut dma = Dma {
            iova,
            size,
            vaddr,
            prot: flags & (map::READ | map::WRITE),
            owner: process,
            device: physical.then_some(vaddr),
            vaddr_invalid: false,
            pins: Vec::new(),
            dirty: Vec::new(),
        };
        if type1.tracks {
            dma.start_tracking();
        }
        type1.dmas.insert(found.start, dma);
        type1.avail -= 1;
        Outcome::ok()
    }

    fn update_vaddr(&self, type1: &mut Type1, process: u8, index: usize, vaddr: u64) -> Outcome {
        let dma = &type1.dmas[index];
        let charged = dma.charged();
        if dma.owner != process && self.is_too_much(type1, process, charged) {
            return Outcome::error(Errno::ENOMEM);
        }
        let dma = &mut type1.dmas[index];
        dma.owner = process;
        dma.vaddr = vaddr;
        dma.vaddr_invalid = false;
        Outcome::ok()
    }

    /// Returns whether a range is inside of the ranges that the container reports.
    pub(super) fn is_mappable(&self, type1: &Type1, first: u64, last: u64) -> bool {
        type1.ranges != Ranges::Physical || self.is_in_aperture(first, last)
    }

    /// Returns whether the IOMMU can map a range.
    pub(super) fn is_in_aperture(&self, first: u64, last: u64) -> bool {
        let mut ranges = self.machine.ranges.iter();
        ranges.any(|(start, end)| first >= *start && last <= *end)
    }

    /// Returns whether `pages` more pages exceed the lock limit of a process.
    pub(super) fn is_too_much(&self, type1: &Type1, process: u8, pages: u64) -> bool {
        let limit = self.machine.limits[usize::from(process)];
        limit.is_some_and(|limit| type1.locked(process) + pages > limit)
    }

    /// Returns whether the process has memory in a range.
    pub(super) fn is_present(&self, vaddr: u64, size: u64) -> bool {
        let (start, end) = self.machine.memory;
        vaddr >= start && vaddr.checked_add(size).is_some_and(|last| last <= end)
    }

    /// Returns the errors with which pinning the pages of a mapping can fail.
    fn pin_failures(&self, type1: &Type1, process: u8, vaddr: u64, size: u64) -> Vec<Errno> {
        let mut reasons = Vec::new();
        let is_present = self.is_present(vaddr, size);
        if !is_present {
            reasons.push(Errno::EFAULT);
        }
        // The limit is checked page by page, up to the first missing page.
        let (start, end) = self.machine.memory;
        let present = match vaddr {
            _ if is_present => size,
            vaddr if vaddr >= start && vaddr < end => end - vaddr,
            _ => 0,
        };
        if self.is_too_much(type1, process, present / PAGE) {
            reasons.push(Errno::ENOMEM);
        }
        reasons
    }
}

/// Checks the arguments alone, and returns the last address.
fn check(flags: u32, vaddr: u64, iova: u64, size: u64) -> Result<u64, Errno> {
    if flags & !(map::READ | map::WRITE | map::VADDR) != 0 || size == 0 {
        return Err(Errno::EINVAL);
    }
    let last = iova.checked_add(size - 1).ok_or(Errno::EOVERFLOW)?;
    vaddr.checked_add(size - 1).ok_or(Errno::EOVERFLOW)?;
    let has_prot = flags & (map::READ | map::WRITE) != 0;
    if has_prot == (flags & map::VADDR != 0) || (size | iova | vaddr) % PAGE != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(last)
}
