// SPDX-License-Identifier: GPL-2.0

//! The driver that pins pages, and DMA.

use super::{
    Container,
    Dma,
    Outcome,
    State, //
};
use crate::{
    defects::Rules,
    op::{
        FAULT,
        MARK,
        PAGE,
        RESULT,
        map, //
    },
};
use vfio_client::Errno;

impl Container {
    /// Returns the mark of the page at an address of a process.
    fn mark_of(&self, vaddr: u64) -> u64 {
        MARK + (vaddr - self.machine.memory.0) / PAGE
    }

    /// Pins pages. On failure, the pages before the one that failed stay marked dirty.
    pub(super) fn pin(&self, state: &mut State, iova: u64, count: u32, prot: u32) -> Outcome {
        let before = state.clone();
        match self.try_pin(state, iova, count, prot) {
            Ok(numbers) => Outcome::Is(Ok(numbers)),
            Err(errno) => {
                let marked = std::mem::replace(state, before);
                keep_marks(state, marked);
                Outcome::error(errno)
            }
        }
    }

    fn try_pin(
        &self,
        state: &mut State,
        iova: u64,
        count: u32,
        prot: u32,
    ) -> Result<Vec<u64>, Errno> {
        let physical = state.physical() > 0;
        let type1 = state.type1.as_mut().ok_or(Errno::ENOTTY)?;
        if count == 0 {
            return Err(Errno::EINVAL);
        }
        if !type1.v2 {
            return Err(Errno::EACCES);
        }
        let size = u64::from(count) * PAGE;
        iova.checked_add(size - 1).ok_or(Errno::EOVERFLOW)?;
        for nth in 0..u64::from(count) {
            let iova = iova + nth * PAGE;
            let index = type1.at(iova).ok_or(Errno::EINVAL)?;
            let dma = &type1.dmas[index];
            if dma.prot & prot != prot {
                return Err(Errno::EPERM);
            }
            let page = (iova - dma.iova) / PAGE;
            let Err(place) = dma.pins.binary_search(&page) else {
                continue;
            };
            if !self.is_present(dma.vaddr + page * PAGE, PAGE) {
                return Err(Errno::EFAULT);
            }
            if !physical && self.is_too_much(type1, dma.owner, 1) {
                return Err(Errno::ENOMEM);
            }
            let dma = &mut type1.dmas[index];
            dma.pins.insert(place, page);
            dma.mark(page);
        }
        Ok(vec![count.into()])
    }

    pub(super) fn unpin(&self, state: &mut State, iova: u64) -> Outcome {
        super::unmap::give_back(state, iova, iova);
        Outcome::ok()
    }

    pub(super) fn read(&self, state: &State, process: u8, iova: u64, count: u32) -> Outcome {
        let mut next = state.clone();
        match self.dma_rw(&mut next, process, iova, count, false) {
            Ok(marks) => Outcome::Is(Ok(marks)),
            Err(errno) => Outcome::error(errno),
        }
    }

    pub(super) fn write(&self, state: &mut State, process: u8, iova: u64, count: u32) -> Outcome {
        match self.dma_rw(state, process, iova, count, true) {
            Ok(_) => Outcome::ok(),
            Err(errno) => Outcome::error(errno),
        }
    }

    /// Copies mapping by mapping. If a later mapping fails, pages written before stay written and
    /// dirty.
    fn dma_rw(
        &self,
        state: &mut State,
        process: u8,
        iova: u64,
        count: u32,
        write: bool,
    ) -> Result<Vec<u64>, Errno> {
        let type1 = state.type1.as_mut().ok_or(Errno::ENOTTY)?;
        let mut marks = Vec::new();
        let mut nth = 0;
        while nth < u64::from(count) {
            let iova = iova.wrapping_add(nth * PAGE);
            let index = type1.at(iova).ok_or(Errno::EINVAL)?;
            let dma = &mut type1.dmas[index];
            if dma.prot & map::READ == 0 || write && dma.prot & map::WRITE == 0 {
                return Err(Errno::EPERM);
            }
            let page = (iova - dma.iova) / PAGE;
            // The part inside of one mapping is copied as a whole, or fails.
            let here = (dma.pages() - page).min(u64::from(count) - nth);
            let vaddr = dma.vaddr + page * PAGE;
            if dma.owner != process {
                return Err(Errno::EFAULT);
            }
            if !self.is_present(vaddr, here * PAGE) {
                if write && self.rules == Rules::Strict {
                    // The copy ends at the first page that is missing.
                    let base = dma.vaddr;
                    (page..page + here)
                        .take_while(|page| self.is_present(base + page * PAGE, PAGE))
                        .for_each(|page| dma.mark(page));
                }
                return Err(Errno::EFAULT);
            }
            for page in page..page + here {
                marks.push(self.mark_of(dma.vaddr + page * PAGE));
                if write {
                    dma.mark(page);
                }
            }
            nth += here;
        }
        Ok(marks)
    }

    /// The `edu` reads a page and stores its mark.
    pub(super) fn dma(&self, state: &State, iova: u64) -> Outcome {
        let Some(type1) = state.type1.as_ref().filter(|_| state.joined[1]) else {
            return Outcome::error(Errno::EINVAL);
        };
        let page = |iova: u64, prot: u32| {
            let dma = &type1.dmas[type1.at(iova)?];
            let vaddr = dma.device? + (iova - dma.iova);
            (dma.prot & prot == prot).then(|| self.mark_of(vaddr))
        };
        // If the mark cannot be stored, the program finds its own initial value.
        let stored = page(RESULT, map::READ | map::WRITE).and(page(iova, map::READ));
        Outcome::value(stored.unwrap_or(FAULT))
    }
}

impl State {
    /// Visits all mapped pages in a range: the mapping, and the index of the page in it.
    fn for_each_page(&mut self, iova: u64, size: u64, mut visit: impl FnMut(&mut Dma, u64)) {
        let (Some(type1), Some(more)) = (&mut self.type1, size.checked_sub(1)) else {
            return;
        };
        let last = iova.saturating_add(more);
        let found = type1.within(iova, last);
        for dma in &mut type1.dmas[found] {
            let first = (iova.max(dma.iova) - dma.iova) / PAGE;
            let end = (last.min(dma.last()) - dma.iova) / PAGE;
            (first..=end).for_each(|page| visit(dma, page));
        }
    }

    /// Records that pages of a range were written.
    pub fn mark(&mut self, iova: u64, size: u64) {
        self.for_each_page(iova, size, Dma::mark);
    }

    /// Records that a driver pinned the pages of a range.
    pub fn pin(&mut self, iova: u64, size: u64) {
        self.for_each_page(iova, size, |dma, page| {
            if let Err(place) = dma.pins.binary_search(&page) {
                dma.pins.insert(place, page);
                dma.mark(page);
            }
        });
    }

    /// Records that a driver unpinned the pages of a range.
    pub fn unpin(&mut self, iova: u64, size: u64) {
        let last = iova.saturating_add(size.saturating_sub(1));
        for dma in self.type1.iter_mut().flat_map(|type1| &mut type1.dmas) {
            let start = dma.iova;
            let is_kept = |page: &u64| !(iova..=last).contains(&(start + page * PAGE));
            dma.pins.retain(is_kept);
        }
    }
}

/// Keeps the dirty bits of a failed call.
fn keep_marks(state: &mut State, marked: State) {
    let dmas = state.type1.iter_mut().flat_map(|type1| &mut type1.dmas);
    let marked = marked.type1.into_iter().flat_map(|type1| type1.dmas);
    for (dma, marked) in dmas.zip(marked) {
        dma.dirty = marked.dirty;
    }
}
