// SPDX-License-Identifier: GPL-2.0

//! The work on one map.

use kernel::prelude::*;

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
        PinBatch, //
    },
};

use crate::{
    container::{
        Claim,
        Container, //
    },
    maps::Body, //
};

use super::PAGE;

/// A map that a device without an IOMMU uses, claimed.
pub(super) struct Target<'a> {
    claim: Claim<'a>,
    body: Body,
    /// The address in the owner's memory of the first byte of the map.
    vaddr: usize,
    /// Whether the container has no IOMMU, so that each page is charged when it is pinned.
    charges: bool,
    /// Whether track was kept of dirty pages when the map was claimed.
    tracks_dirty: bool,
    /// Pages that were written, to be noted if track is kept when the work ends.
    written: Option<(u64, u64)>,
}

impl Container {
    /// Claims the map that has address `iova`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if nothing is mapped there.
    pub(super) fn target(&self, iova: u64) -> Result<Target<'_>> {
        let point = Range {
            start: iova,
            last: iova,
        };
        let mut state = self.lock();
        self.wait_idle(&mut state, point);
        let charges = !state.has_iommu();
        let tracks_dirty = state.tracks_dirty;
        let mut found = Err(EINVAL);
        state.maps.for_each_in_mut(point, |range, map| {
            if let Some((claim, body)) = self.claim(range, map) {
                found = Ok(Target {
                    claim,
                    body,
                    vaddr: map.vaddr(),
                    charges,
                    tracks_dirty,
                    written: None,
                });
            }
            false
        });
        state.busy += usize::from(found.is_ok());
        found
    }
}

impl Target<'_> {
    /// Ends the work.
    ///
    /// Keeping track of dirty pages may begin at any time. What is written after that has to be noted,
    /// and what was written before may be.
    pub(super) fn finish(mut self) {
        let pages = self.pages();
        self.claim.publish_with(|state| {
            if let Some((first, count)) = self.written.filter(|_| state.tracks_dirty) {
                self.body.add_dirty(first, count, pages);
            }
            self.body
        });
    }

    /// How many pages the map has.
    fn pages(&self) -> u64 {
        let range = self.claim.range();
        (range.last - range.start) / PAGE + 1
    }

    /// The number in the map of the page at `iova`, and how many of `count` pages from there on are in
    /// the map.
    fn part(&self, iova: u64, count: usize) -> (u64, u64) {
        let first = (iova - self.claim.range().start) / PAGE;
        (first, (self.pages() - first).min(count as u64))
    }

    /// Pins the pages from `iova` on which are in this map, and puts them into `pages` from number
    /// `done` on. Counts them in `done`.
    ///
    /// # Errors
    ///
    /// `EPERM` if the map doesn't allow such accesses; those of [`pin_missing`](Self::pin_missing).
    pub(super) fn pin(
        &mut self,
        iova: u64,
        prot: Prot,
        pages: &mut PageSlots<'_>,
        done: &mut usize,
    ) -> Result {
        if !self.body.mapping.prot().contains_all(prot) {
            return Err(EPERM);
        }
        let (mut page, mut left) = self.part(iova, pages.len() - *done);
        while left != 0 {
            let before = *done;
            // A page that is pinned already is shared even after the owner has exited.
            if let Some(pins) = self.body.pins_mut() {
                pins.share(page, left, |pinned| {
                    pages.set(*done, pinned);
                    *done += 1;
                });
            }
            if *done == before {
                let missing = self
                    .body
                    .pins()
                    .map_or(left, |pins| pins.missing(page, left));
                self.pin_missing(page, pages.batch(*done, missing as usize), done)?;
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
    fn pin_missing(&mut self, first: u64, mut batch: PinBatch<'_>, done: &mut usize) -> Result {
        if batch.capacity() == 0 {
            return Err(EINVAL);
        }
        let filled = self.fill(first, &mut batch)?;
        if self.charges {
            self.body.charge.add(batch.charged())?;
        }
        let pins = self.body.make_pins();
        let inserted = pins.and_then(|pins| pins.insert(first, &mut batch));
        *done += filled - batch.len();
        if self.charges {
            // Those that were not inserted are given back here.
            self.body.charge.sub(batch.charged());
        }
        inserted
    }

    /// Pins pages from number `first` on, in the owner's memory. Returns how many.
    fn fill(&self, first: u64, batch: &mut PinBatch<'_>) -> Result<usize> {
        let vaddr = self.vaddr + (first * PAGE) as usize;
        let write = self.body.mapping.prot().contains(Access::Write);
        let owner = self.body.charge.owner();
        let count = batch.capacity();
        // Registers of a device have no page to give.
        let none = |e, registers: Option<FrameRun>| registers.map_or(e, |_| EINVAL);
        if owner.is_current() {
            match batch.fill(vaddr, count, write) {
                Ok(filled) => Ok(filled),
                Err(e) => Err(none(e, FrameRun::find(vaddr, 1, write)?)),
            }
        } else {
            let memory = owner.memory().ok_or(ENODEV)?;
            match batch.fill_remote(&memory, vaddr, count, write) {
                Ok(filled) => Ok(filled),
                Err(e) => Err(none(e, FrameRun::find_remote(&memory, vaddr, 1, write)?)),
            }
        }
    }

    /// Unpins those of `count` pages from `iova` on that are in this map. Returns how many that are.
    pub(super) fn unpin(&mut self, iova: u64, count: usize) -> usize {
        let (first, part) = self.part(iova, count);
        let pages = self.pages();
        let track = self.tracks_dirty.then_some(pages);
        self.body.release_pins(first, part, track, self.charges);
        if !self.tracks_dirty {
            self.written = Some((first, part));
        }
        part as usize
    }

    /// Copies as much of `data` as is in this map, which has address `iova`, from byte `done` on.
    /// Counts the bytes in `done`.
    ///
    /// # Errors
    ///
    /// `EPERM` if devices may not read there, or not write for a write; those of copying.
    pub(super) fn copy(&mut self, iova: u64, data: &mut Transfer<'_>, done: &mut usize) -> Result {
        let prot = self.body.mapping.prot();
        let write = matches!(data, Transfer::Write(_));
        if !prot.contains(Access::Read) || write && !prot.contains(Access::Write) {
            return Err(EPERM);
        }
        let range = self.claim.range();
        let offset = iova - range.start;
        let left = (data.len() - *done) as u64;
        let count = (range.last - iova).saturating_add(1).min(left) as usize;
        let vaddr = self.vaddr + offset as usize;
        let part = *done..*done + count;
        let owner = self.body.charge.owner();
        match data {
            Transfer::Read(buffer) => owner.read(vaddr, buffer.get_mut(part).ok_or(EINVAL)?)?,
            Transfer::Write(buffer) => {
                owner.write(vaddr, buffer.get(part).ok_or(EINVAL)?)?;
                let first = offset / PAGE;
                let last = (offset + count as u64 - 1) / PAGE;
                self.written = Some((first, last - first + 1));
            }
        }
        *done += count;
        Ok(())
    }
}
