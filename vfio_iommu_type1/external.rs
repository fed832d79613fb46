// SPDX-License-Identifier: GPL-2.0

//! Devices without an IOMMU: their drivers ask for pages by device address, or let the kernel copy.

use kernel::{
    page::PAGE_SIZE,
    pr_warn_once,
    prelude::*, //
};

use iommu_group::ranges::Range;

use kernel_ext::{
    iommu::{
        Access,
        Group,
        Prot, //
    },
    iommu_driver::{
        PageSlots,
        Transfer,
        UserDevice, //
    },
    mm::{
        FrameRun,
        PinBatch, //
    },
};

use crate::{
    abi::dma_unmap,
    container::{
        Claim,
        Container,
        Guard, //
    },
    maps::Body, //
};

/// The size of a page.
const PAGE: u64 = PAGE_SIZE as u64;

/// A map that a device of this kind uses, claimed.
struct Target<'a> {
    claim: Claim<'a>,
    body: Body,
    /// The address in the owner's memory of the first byte of the map.
    vaddr: usize,
    prot: Prot,
    /// Whether the container has no IOMMU, so that each page is charged when it is pinned.
    charges: bool,
    /// Whether track is kept of dirty pages.
    tracks_dirty: bool,
}

impl Container {
    /// Claims the map that has address `iova`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if nothing is mapped there.
    fn target(&self, iova: u64) -> Result<Target<'_>> {
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
                    vaddr: map.vaddr,
                    prot: map.prot,
                    charges,
                    tracks_dirty,
                });
            }
            false
        });
        state.busy += usize::from(found.is_ok());
        found
    }

    /// Pins pages for a device of `group`.
    ///
    /// # Errors
    ///
    /// `EACCES` in the first version of the interface, `EOVERFLOW` past the last address, `EBUSY`
    /// while an address is withdrawn, `EINVAL` if no device could be told to give pages back or
    /// nothing is mapped, `EPERM` if the map doesn't allow such accesses, `ENODEV` if the owner has
    /// exited, `ENOMEM` over the limit, and those of pinning. Then no page is pinned.
    pub(crate) fn pin(
        &self,
        group: &Group,
        iova: u64,
        prot: Prot,
        pages: &mut PageSlots<'_>,
    ) -> Result {
        if !self.v2 {
            return Err(EACCES);
        }
        Range::of_size(iova, pages.bytes()?)?;
        let state = self.lock();
        refuse_while_withdrawn(&state, "vfio_pin_pages")?;
        if state.devices == 0 {
            return Err(EINVAL);
        }
        drop(state);

        let mut done = 0;
        while done < pages.len() {
            let next = iova + done as u64 * PAGE;
            let pinned = self.target(next).and_then(|mut target| {
                let pinned = target.pin(next, prot, pages, &mut done);
                target.claim.publish(target.body);
                pinned
            });
            if let Err(e) = pinned {
                pages.clear(done);
                self.unpin(iova, done);
                return Err(e);
            }
        }
        let mut state = self.lock();
        for domain in state.domains.iter_mut() {
            for member in domain.groups.iter_mut() {
                member.pins |= member.attachment.group() == group;
            }
        }
        Ok(())
    }

    /// Gives back `count` pages that a driver has pinned from `iova` on. Returns how many of them are
    /// in a map.
    pub(crate) fn unpin(&self, iova: u64, count: usize) -> usize {
        let mut done = 0;
        while done < count {
            let next = iova + done as u64 * PAGE;
            let Ok(mut target) = self.target(next) else {
                break;
            };
            let range = target.claim.range();
            let end = ((range.last - next) / PAGE + 1).min((count - done) as u64);
            let first = (next - range.start) / PAGE;
            let mut charged = 0;
            for page in first..first + end {
                if let Some(run) = target.body.pins_mut().and_then(|pins| pins.release(page)) {
                    charged += usize::from(run.is_charged());
                    if target.tracks_dirty {
                        let pages = target.pages();
                        target.body.add_dirty(page, 1, pages);
                    }
                }
            }
            if target.charges {
                target.body.charge.sub(charged);
            }
            target.claim.publish(target.body);
            done += end as usize;
        }
        done
    }

    /// Takes note of a device that was opened.
    pub(crate) fn add_device(&self, device: UserDevice) {
        if !device.has_dma_unmap() {
            return;
        }
        let mut devices = self.devices.lock();
        if devices.push(device, GFP_KERNEL).is_ok() {
            self.lock().devices += 1;
        }
    }

    /// Forgets a device that is being closed.
    pub(crate) fn remove_device(&self, device: UserDevice) {
        let mut devices = self.devices.lock();
        if let Some(place) = devices.iter().position(|&other| other == device) {
            if devices.remove(place).is_ok() {
                self.lock().devices -= 1;
            }
        }
    }

    /// Copies between kernel memory and what is mapped from `iova` on.
    ///
    /// # Errors
    ///
    /// `EBUSY` while an address is withdrawn, `EINVAL` where nothing is mapped, `EPERM` if devices may
    /// not read there, or not write for a write, or the owner has exited; `EFAULT`.
    pub(crate) fn copy(&self, iova: u64, mut data: Transfer<'_>) -> Result {
        refuse_while_withdrawn(&self.lock(), "vfio_dma_rw")?;
        let mut done = 0;
        while done < data.len() {
            let next = iova.checked_add(done as u64).ok_or(EINVAL)?;
            let mut target = self.target(next)?;
            let copied = target.copy(next, &mut data, &mut done);
            target.claim.publish(target.body);
            copied?;
        }
        Ok(())
    }
}

impl Target<'_> {
    /// How many pages the map has.
    fn pages(&self) -> u64 {
        let range = self.claim.range();
        (range.last - range.start) / PAGE + 1
    }

    /// Pins the pages from `iova` on which are in this map, and puts them into `pages` from number
    /// `done` on. Counts them in `done`.
    fn pin(
        &mut self,
        iova: u64,
        prot: Prot,
        pages: &mut PageSlots<'_>,
        done: &mut usize,
    ) -> Result {
        if !self.prot.contains_all(prot) {
            return Err(EPERM);
        }
        let first = (iova - self.claim.range().start) / PAGE;
        let count = (self.pages() - first).min((pages.len() - *done) as u64);
        // A page that is pinned already is shared even after the owner has exited.
        let mut memory = None;
        let write = self.prot.contains(Access::Write);
        let mut batch = PinBatch::new(count as usize)?;
        let mut page = first;
        while page < first + count {
            let shared = self.body.pins_mut().and_then(|pins| pins.share(page));
            if let Some(shared) = shared {
                pages.set(*done, shared);
                *done += 1;
                page += 1;
                continue;
            }
            // As many as are missing in a row by one call.
            let mut missing = 1;
            while page + missing < first + count
                && !self
                    .body
                    .pins()
                    .is_some_and(|pins| pins.has(page + missing))
            {
                missing += 1;
            }
            let vaddr = self.vaddr + (page * PAGE) as usize;
            if memory.is_none() {
                memory = self.body.charge.owner().memory();
            }
            let mm = memory.as_ref().ok_or(ENODEV)?;
            batch
                .fill_remote(mm, vaddr, missing as usize, write)
                .or_else(|e| match FrameRun::find_remote(mm, vaddr, 1, write)? {
                    // Registers of a device have no page to give.
                    Some(_) => Err(EINVAL),
                    None => Err(e),
                })?;
            while let Some(run) = batch.take_run(1) {
                let charged = self.charges && run.is_charged();
                self.body.charge.add(usize::from(charged))?;
                match self
                    .body
                    .make_pins()
                    .and_then(|pins| pins.insert(page, run))
                {
                    Ok(pinned) => pages.set(*done, pinned),
                    Err(e) => {
                        self.body.charge.sub(usize::from(charged));
                        return Err(e);
                    }
                }
                *done += 1;
                page += 1;
            }
        }
        Ok(())
    }

    /// Copies as much of `data` as is in this map, which has address `iova`, from byte `done` on.
    /// Counts the bytes in `done`.
    fn copy(&mut self, iova: u64, data: &mut Transfer<'_>, done: &mut usize) -> Result {
        let write = matches!(data, Transfer::Write(_));
        let readable = self.prot.contains(Access::Read);
        if !readable || write && !self.prot.contains(Access::Write) {
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
            Transfer::Write(buffer) => owner.write(vaddr, buffer.get(part).ok_or(EINVAL)?)?,
        }
        if write && self.tracks_dirty {
            let first = offset / PAGE;
            let last = (offset + count as u64 - 1) / PAGE;
            let pages = self.pages();
            self.body.add_dirty(first, last - first + 1, pages);
        }
        *done += count;
        Ok(())
    }
}

impl Container {
    /// Asks all devices to give back what they have pinned of `range`.
    ///
    /// They call [`unpin`](Self::unpin), so nothing that this waits for is held.
    pub(crate) fn notify(&self, range: Range) {
        let devices = self.devices.lock();
        for device in devices.iter() {
            dma_unmap(&devices, device, range);
        }
    }
}

/// Refuses with `EBUSY` while the program has withdrawn an address; such programs and these devices
/// don't go together.
fn refuse_while_withdrawn(state: &Guard<'_>, what: &str) -> Result {
    if state.vaddr_invalid != 0 {
        pr_warn_once!("{what} is not allowed while a program updates its addresses\n");
        return Err(EBUSY);
    }
    Ok(())
}
