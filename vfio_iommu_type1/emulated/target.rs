// SPDX-License-Identifier: GPL-2.0

//! Pinning and copying in one mapping.

use kernel::{
    prelude::*,
    sync::Arc, //
};

use kernel_ext::{
    iommu::{
        Access,
        Prot, //
    },
    iommu_driver::{
        PageSlots,
        Transfer, //
    },
    iova::Range,
    mm::{
        FrameRun,
        Owner,
        SlotBatch, //
    }, //
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

/// The rules for device access to the mappings of a container. They do not change while a mapping
/// is locked.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    /// Whether the container has no IOMMU, so that pages are charged when a driver pins them.
    charges: bool,
    /// Whether dirty tracking is enabled.
    dirty_page_tracking: bool,
}

impl Rules {
    /// Returns the rules of a container.
    pub(super) fn of(layout: &Layout) -> Self {
        Self {
            charges: !layout.has_iommu(),
            dirty_page_tracking: layout.dirty_page_tracking,
        }
    }
}

/// A mapping that a device driver accesses, locked exclusively.
pub(super) struct Target<'a> {
    range: Range,
    dma: &'a mut DmaPages,
    rules: Rules,
}

impl<'a> Target<'a> {
    /// Wraps the mapping at `range`.
    pub(super) fn new(range: Range, dma: &'a mut DmaPages, rules: Rules) -> Self {
        Self { range, dma, rules }
    }

    /// Returns the number of pages in the mapping.
    fn pages(&self) -> u64 {
        (self.range.last - self.range.start) / PAGE + 1
    }

    /// Returns the index of the page at `iova`, and how many of the `count` pages from there on
    /// belong to the mapping.
    fn part(&self, iova: u64, count: usize) -> (u64, u64) {
        let first = (iova - self.range.start) / PAGE;
        (first, (self.pages() - first).min(count as u64))
    }

    /// Records that the bytes from `iova` to `last`, which belong to this mapping, were written.
    pub(super) fn written(&mut self, iova: u64, last: u64) {
        if self.rules.dirty_page_tracking {
            let pages = self.pages();
            let (first, last) = (
                (iova - self.range.start) / PAGE,
                (last - self.range.start) / PAGE,
            );
            self.dma.add_dirty(first, last - first + 1, pages);
        }
    }

    /// Pins the pages starting at `iova` that belong to this mapping, and stores them in the next
    /// slots of `pages`.
    ///
    /// # Errors
    ///
    /// `EPERM` if the mapping does not allow the access; those of
    /// [`pin_missing`](Self::pin_missing).
    pub(super) fn pin(
        &mut self,
        iova: u64,
        vaddr: Vaddr,
        prot: Prot,
        pages: &mut PageSlots<'_>,
    ) -> Result {
        if !self.dma.mapping().prot().contains_all(prot) {
            return Err(EPERM);
        }
        let (mut page, mut left) = self.part(iova, pages.missing());
        while left != 0 {
            let before = pages.filled();
            // A page that is already pinned can be shared even after the owner has exited.
            if let Some(pins) = self.dma.pins_mut() {
                pins.share(page, left, |pinned| pages.push(pinned));
            }
            if pages.filled() == before {
                let missing = self
                    .dma
                    .pins()
                    .map_or(left, |pins| pins.missing(page, left));
                pages.batch(missing as usize, |batch| {
                    self.pin_missing(page, vaddr, batch)
                })?;
            }
            let progress = (pages.filled() - before) as u64;
            page += progress;
            left -= progress;
        }
        Ok(())
    }

    /// Pins at least one page from index `first` on, and at most as many as `batch` has room for.
    /// None of them is pinned yet.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `batch` has no room, or for MMIO; `ENODEV` if the owner has exited; `ENOMEM`
    /// over the limit; those of pinning. Some pages may be pinned then.
    fn pin_missing(&mut self, first: u64, vaddr: Vaddr, batch: &mut SlotBatch<'_>) -> Result {
        if batch.capacity() == 0 {
            return Err(EINVAL);
        }
        self.fill(first, vaddr, batch)?;
        if self.rules.charges {
            // The owner may have exited in the meantime.
            let charged = self.dma.charge.add(batch.charged());
            charged.map_err(|e| if e == ESRCH { ENODEV } else { e })?;
        }
        let inserted = self.dma.add_pins(first, batch);
        if self.rules.charges {
            // Uncharge the pages that were not inserted.
            self.dma.charge.sub(batch.charged());
        }
        inserted
    }

    /// Pins pages of the owner's memory from index `first` on.
    fn fill(&self, first: u64, vaddr: Vaddr, batch: &mut SlotBatch<'_>) -> Result {
        let offset = (first * PAGE) as usize;
        let vaddr = vaddr.get().checked_add(offset).ok_or(EFAULT)?;
        let write = self.dma.mapping().prot().contains(Access::Write);
        let owner = self.dma.charge.owner();
        let count = batch.capacity();
        if owner.is_current() {
            if batch.fill(vaddr, count, write).is_ok() {
                return Ok(());
            }
            // The protection keys of this thread do not apply to devices, so `fill` may fail where
            // access is allowed.
        }
        let memory = owner.memory().ok_or(ENODEV)?;
        batch
            .fill_remote(&memory, vaddr, count, write)
            .or_else(|e| {
                // MMIO has no `struct page`.
                let mmio = FrameRun::find_remote(&memory, vaddr, 1, write)?;
                Err(mmio.map_or(e, |_| EINVAL))
            })?;
        Ok(())
    }

    /// Unpins those of the `count` pages starting at `iova` that belong to this mapping. Returns
    /// how many belong to it.
    pub(super) fn unpin(&mut self, iova: u64, count: usize) -> usize {
        let (first, part) = self.part(iova, count);
        let track = self.rules.dirty_page_tracking.then_some(self.pages());
        self.dma
            .release_pins(first, part, track, self.rules.charges);
        part as usize
    }
}

/// The data needed to copy to or from a mapping.
pub(super) struct Source {
    range: Range,
    /// The address of the first byte in the owner's memory.
    vaddr: Vaddr,
    prot: Prot,
    owner: Arc<Owner>,
}

impl Source {
    /// Wraps the mapping at `range`.
    pub(super) fn new(range: Range, vaddr: Vaddr, dma: &DmaPages) -> Self {
        Self {
            range,
            vaddr,
            prot: dma.mapping().prot(),
            owner: dma.charge.owner().clone(),
        }
    }

    /// Returns the mapping that contains `iova`, which the caller has locked.
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

    /// Copies `data`, from byte `done` on, to or from `iova`, up to the end of this mapping.
    /// `iova` lies in this mapping. Adds the number of bytes to `done`.
    ///
    /// # Errors
    ///
    /// `EPERM` if devices may not read there, or may not write there and `data` is a write;
    /// `EFAULT` if not all of a write could be copied; those of copying.
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
        let copied = match data {
            Transfer::Read(buffer) => {
                let buffer = buffer.get_mut(part).ok_or(EINVAL)?;
                self.owner.read(vaddr, buffer).map(|()| count)?
            }
            Transfer::Write(buffer) => self.owner.write(vaddr, buffer.get(part).ok_or(EINVAL)?)?,
        };
        *done += copied;
        (copied == count).then_some(()).ok_or(EFAULT)
    }
}
