// SPDX-License-Identifier: GPL-2.0

//! The work on one mapping.

use kernel::{
    prelude::*,
    sync::Arc, //
};

use iommu_group::ranges::Range;

use kernel_ext::{
    iommu::{
        Access,
        Prot, //
    },
    iommu_driver::{
        PageSlots,
        Transfer, //
    },
    mm::{
        FrameRun,
        Owner,
        PinBatch, //
    },
};

use crate::{
    container::{
        Container,
        Layout, //
    },
    pages::DmaPages,
    space::{
        Held,
        Vaddr, //
    }, //
};

use super::PAGE;

/// How a container's mappings are used for emulated devices. It doesn't change while one is locked.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    /// Whether the container has no IOMMU, so that each page is charged when it is pinned.
    charges: bool,
    /// Whether track is kept of dirty pages.
    tracks_dirty: bool,
}

impl Rules {
    /// Those of a container.
    pub(super) fn of(layout: &Layout) -> Self {
        Self {
            charges: !layout.has_iommu(),
            tracks_dirty: layout.tracks_dirty,
        }
    }
}

/// A mapping that an emulated device uses, locked alone.
pub(super) struct Target<'a> {
    range: Range,
    dma: &'a mut DmaPages,
    rules: Rules,
}

impl<'a> Target<'a> {
    /// The mapping of `range`.
    pub(super) fn new(range: Range, dma: &'a mut DmaPages, rules: Rules) -> Self {
        Self { range, dma, rules }
    }

    /// How many pages the mapping has.
    fn pages(&self) -> u64 {
        (self.range.last - self.range.start) / PAGE + 1
    }

    /// The number in the mapping of the page at `iova`, and how many of `count` pages from there on are in
    /// the mapping.
    fn part(&self, iova: u64, count: usize) -> (u64, u64) {
        let first = (iova - self.range.start) / PAGE;
        (first, (self.pages() - first).min(count as u64))
    }

    /// Notes that the bytes from `iova` to `last` were written, which are in this mapping.
    pub(super) fn written(&mut self, iova: u64, last: u64) {
        if self.rules.tracks_dirty {
            let pages = self.pages();
            let (first, last) = (
                (iova - self.range.start) / PAGE,
                (last - self.range.start) / PAGE,
            );
            self.dma.add_dirty(first, last - first + 1, pages);
        }
    }

    /// Pins the pages from `iova` on which are in this mapping, and puts them into `pages` from number
    /// `done` on. Counts them in `done`.
    ///
    /// # Errors
    ///
    /// `EPERM` if the mapping doesn't allow such accesses; those of [`pin_missing`](Self::pin_missing).
    pub(super) fn pin(
        &mut self,
        iova: u64,
        vaddr: Vaddr,
        prot: Prot,
        pages: &mut PageSlots<'_>,
        done: &mut usize,
    ) -> Result {
        if !self.dma.mapping.prot().contains_all(prot) {
            return Err(EPERM);
        }
        let (mut page, mut left) = self.part(iova, pages.len() - *done);
        while left != 0 {
            let before = *done;
            // A page that is pinned already is shared even after the owner has exited.
            if let Some(pins) = self.dma.pins_mut() {
                pins.share(page, left, |pinned| {
                    pages.set(*done, pinned);
                    *done += 1;
                });
            }
            if *done == before {
                let missing = self
                    .dma
                    .pins()
                    .map_or(left, |pins| pins.missing(page, left));
                self.pin_missing(page, vaddr, pages.batch(*done, missing as usize), done)?;
            }
            let progress = (*done - before) as u64;
            page += progress;
            left -= progress;
        }
        Ok(())
    }

    /// Pins at least one page from number `first` on, none of which is pinned, and no more than there
    /// is room for in `batch`. Counts them in `done`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no room, or for registers of a device; `ENODEV` if the owner has exited,
    /// `ENOMEM` over the limit, and those of pinning. Some may be pinned then.
    fn pin_missing(
        &mut self,
        first: u64,
        vaddr: Vaddr,
        mut batch: PinBatch<'_>,
        done: &mut usize,
    ) -> Result {
        if batch.capacity() == 0 {
            return Err(EINVAL);
        }
        let filled = self.fill(first, vaddr, &mut batch)?;
        if self.rules.charges {
            // The owner may have exited since.
            let charged = self.dma.charge.add(batch.charged());
            charged.map_err(|e| if e == ESRCH { ENODEV } else { e })?;
        }
        let pins = self.dma.make_pins();
        let inserted = pins.and_then(|pins| pins.insert(first, &mut batch));
        *done += filled - batch.len();
        if self.rules.charges {
            // Those that were not inserted are given back here.
            self.dma.charge.sub(batch.charged());
        }
        inserted
    }

    /// Pins pages from number `first` on, in the owner's memory. Returns how many.
    fn fill(&self, first: u64, vaddr: Vaddr, batch: &mut PinBatch<'_>) -> Result<usize> {
        let offset = (first * PAGE) as usize;
        let vaddr = vaddr.get().checked_add(offset).ok_or(EFAULT)?;
        let write = self.dma.mapping.prot().contains(Access::Write);
        let owner = self.dma.charge.owner();
        let count = batch.capacity();
        if owner.is_current() {
            if let Ok(filled) = batch.fill(vaddr, count, write) {
                return Ok(filled);
            }
            // Protection keys of this thread say nothing about devices.
        }
        let memory = owner.memory().ok_or(ENODEV)?;
        batch
            .fill_remote(&memory, vaddr, count, write)
            .or_else(|e| {
                // Registers of a device have no page to give.
                let registers = FrameRun::find_remote(&memory, vaddr, 1, write)?;
                Err(registers.map_or(e, |_| EINVAL))
            })
    }

    /// Unpins those of `count` pages from `iova` on that are in this mapping. Returns how many that are.
    pub(super) fn unpin(&mut self, iova: u64, count: usize) -> usize {
        let (first, part) = self.part(iova, count);
        let track = self.rules.tracks_dirty.then_some(self.pages());
        self.dma
            .release_pins(first, part, track, self.rules.charges);
        part as usize
    }
}

/// What it takes to copy to or from a mapping.
pub(super) struct Source {
    range: Range,
    /// The address in the owner's memory of the first byte.
    vaddr: Vaddr,
    prot: Prot,
    owner: Arc<Owner>,
}

impl Source {
    /// The mapping of `range`.
    pub(super) fn new(range: Range, vaddr: Vaddr, dma: &DmaPages) -> Self {
        Self {
            range,
            vaddr,
            prot: dma.mapping.prot(),
            owner: dma.charge.owner().clone(),
        }
    }

    /// The mapping that has address `iova`, which is locked.
    pub(super) fn at(held: &mut Held<'_, Container>, iova: u64) -> Option<Self> {
        let mut found = None;
        held.for_each_from(iova, |range, dma| {
            let parts = dma.vaddr().zip(dma.pages());
            if let Some((vaddr, pages)) = parts.filter(|_| range.start <= iova) {
                found = Some(Self::new(range, vaddr, pages));
            }
            false
        });
        found
    }

    /// Copies as much of `data` as is in this mapping, which has address `iova`, from byte `done` on.
    /// Counts the bytes in `done`.
    ///
    /// # Errors
    ///
    /// `EPERM` if devices may not read there, or not write for a write; those of copying.
    pub(super) fn copy(&self, iova: u64, data: &mut Transfer<'_>, done: &mut usize) -> Result {
        let write = matches!(data, Transfer::Write(_));
        if !self.prot.contains(Access::Read) || write && !self.prot.contains(Access::Write) {
            return Err(EPERM);
        }
        let left = (data.len() - *done) as u64;
        let count = (self.range.last - iova).saturating_add(1).min(left) as usize;
        let offset = (iova - self.range.start) as usize;
        let vaddr = self.vaddr.get().checked_add(offset).ok_or(EFAULT)?;
        let part = *done..*done + count;
        match data {
            Transfer::Read(buffer) => self
                .owner
                .read(vaddr, buffer.get_mut(part).ok_or(EINVAL)?)?,
            Transfer::Write(buffer) => self.owner.write(vaddr, buffer.get(part).ok_or(EINVAL)?)?,
        }
        *done += count;
        Ok(())
    }
}
