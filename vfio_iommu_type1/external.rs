// SPDX-License-Identifier: GPL-2.0

//! Devices without an IOMMU: their drivers ask for pages by device address, or let the kernel copy.

mod target;

use kernel::{
    dev_warn,
    page::PAGE_SIZE,
    pr_warn_once,
    prelude::*, //
};

use iommu_group::ranges::Range;

use kernel_ext::{
    iommu::{
        Group,
        Prot, //
    },
    iommu_driver::{
        PageSlots,
        Transfer,
        UserDevice, //
    },
    mm::may_warn, //
};

use crate::{
    abi::{
        dma_unmap,
        named, //
    },
    container::{
        Container,
        Guard, //
    }, //
};

/// The size of a page.
const PAGE: u64 = PAGE_SIZE as u64;

impl Container {
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
                target.finish();
                pinned
            });
            if let Err(e) = pinned {
                pages.clear();
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
            done += target.unpin(next, count - done);
            target.finish();
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
            target.finish();
            copied?;
        }
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

    /// Tells in the log who may keep pages of `range`, which all devices were asked for in vain.
    pub(crate) fn blame(&self, range: Range) {
        if !may_warn() {
            return;
        }
        let Range { start, last } = range;
        let devices = self.devices.lock();
        for dev in named(&devices) {
            dev_warn!(
                dev,
                "vfio: the unmap of {start:#x}-{last:#x} fails: a driver keeps pages, maybe this one\n"
            );
        }
        if devices.is_empty() {
            pr_warn!(
                "the unmap of {start:#x}-{last:#x} fails: a driver has left pages of a closed device pinned\n"
            );
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
