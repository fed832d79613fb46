// SPDX-License-Identifier: GPL-2.0

//! Access for device drivers: pinning pages by iova, and copying between kernel memory and user
//! memory. It is meant for emulated devices, which have no IOMMU.

mod target;

use core::convert::Infallible;

use kernel::{
    dev_warn,
    page::PAGE_SIZE,
    pr_warn_once,
    prelude::*,
    sync::atomic::Relaxed, //
};

use kernel_ext::{
    iommu::{
        Group,
        Prot, //
    },
    iommu_driver::{
        Filled,
        PageSlots,
        Transfer, //
    },
    iova::Range,
    mm::may_warn, //
};

use crate::{
    container::Container,
    space::{
        Held,
        HeldMut,
        RangeGuard, //
    }, //
};

use self::target::{
    Rules,
    Source,
    Target, //
};

/// The page size.
const PAGE: u64 = PAGE_SIZE as u64;

/// The maximum number of devices that log messages name when an unmap fails.
const MAX_NAMED_DEVICES: usize = 4;

impl Container {
    /// Pins pages for a device of `group`.
    ///
    /// # Errors
    ///
    /// `EACCES` in version 1 of the interface; `EOVERFLOW` beyond the last address; `EBUSY` while
    /// a vaddr is invalid; `EINVAL` if the container has no open device that can be asked to unpin
    /// pages, or if nothing is mapped; `EPERM` if the mapping does not allow the access; `ENODEV`
    /// if the owner has exited; `ENOMEM` over the limit; those of pinning. On failure no page is
    /// pinned.
    pub(crate) fn pin<'a>(
        &self,
        group: &Group,
        iova: u64,
        prot: Prot,
        mut pages: PageSlots<'a>,
    ) -> Result<Filled<'a>> {
        if !self.v2 {
            return Err(EACCES);
        }
        let range = Range::of_size(iova, pages.bytes()?)?;
        let (mut guard, rules) = self.space.lock_mappings(range, |held| {
            check_vaddrs_valid(held, "vfio_pin_pages")?;
            if !self.devices.any() {
                return Err(EINVAL);
            }
            Ok(Rules::of(held.layout))
        })?;
        let pinned = guard.try_update(range, |found, vaddr, dma| {
            let next = iova + pages.filled() as u64 * PAGE;
            let vaddr = vaddr.filter(|_| found.start <= next).ok_or(EINVAL)?;
            Target::new(found, dma, rules).pin(next, vaddr, prot, &mut pages)
        });
        let complete = pages.missing() == 0;
        if let Err(e) = pinned.and(complete.then_some(()).ok_or(EINVAL)) {
            let done = pages.filled();
            pages.clear();
            unpin_in(&mut guard, rules, iova, done);
            return Err(e);
        }
        guard.with(|held| {
            for domain in held.layout.domains.iter() {
                if let Some(member) = domain
                    .position(group)
                    .and_then(|nth| domain.groups.get(nth))
                {
                    member.pinned_page_dirty_scope.store(true, Relaxed);
                }
            }
        });
        pages.finish()
    }

    /// Unpins `count` pages in `range` that a driver has pinned. Returns how many of them belong
    /// to a mapping.
    pub(crate) fn unpin(&self, range: Range, count: usize) -> usize {
        let rules = |held: &mut HeldMut<'_, Self>| Ok::<_, Infallible>(Rules::of(held.layout));
        let Ok((mut guard, rules)) = self.space.lock_mappings(range, rules);
        unpin_in(&mut guard, rules, range.start, count)
    }

    /// Copies between kernel memory and the user memory that is mapped at `iova`.
    ///
    /// # Errors
    ///
    /// `EBUSY` while a vaddr is invalid; `EINVAL` if nothing is mapped; `EPERM` if devices may not
    /// read there, if they may not write there and `data` is a write, or if the owner has exited;
    /// `EFAULT`. A part may have been copied then.
    pub(crate) fn copy(&self, iova: u64, mut data: Transfer<'_>) -> Result {
        let range = Range::of_size(iova, data.len() as u64).map_err(|_| EINVAL)?;
        let mut done = 0;
        if matches!(data, Transfer::Write(_)) {
            // The write is recorded in the mapping, so the mapping has to be locked exclusively.
            let (mut guard, rules) = self.space.lock_mappings(range, |held| {
                check_vaddrs_valid(held, "vfio_dma_rw")?;
                Ok::<_, Error>(Rules::of(held.layout))
            })?;
            guard.try_update(range, |found, vaddr, dma| {
                let next = iova + done as u64;
                let vaddr = vaddr.filter(|_| found.start <= next).ok_or(EINVAL)?;
                let before = done;
                let copied = Source::new(found, vaddr, dma).copy(next, &mut data, &mut done);
                // A failed copy may have written a part.
                if let Some(more) = (done - before).checked_sub(1) {
                    Target::new(found, dma, rules).written(next, next + more as u64);
                }
                copied
            })?;
        } else {
            let begin = |held: &mut Held<'_, Self>| check_vaddrs_valid(held, "vfio_dma_rw");
            let (mut guard, ()) = self.space.share(range, begin)?;
            while done < data.len() {
                let next = iova + done as u64;
                let source = guard.with(|held| Source::at(held, next)).ok_or(EINVAL)?;
                source.copy(next, &mut data, &mut done)?;
            }
        }
        if done == data.len() {
            Ok(())
        } else {
            Err(EINVAL)
        }
    }
}

/// Unpins `count` pages starting at `iova` that a driver has pinned, up to the first one that
/// belongs to no mapping. The caller has locked all of these mappings. Returns the number of pages
/// that belong to a mapping.
fn unpin_in(guard: &mut RangeGuard<'_, Container>, rules: Rules, iova: u64, count: usize) -> usize {
    let mut done = 0;
    let Ok(range) = Range::of_size(iova, count as u64 * PAGE) else {
        return 0;
    };
    guard.update(range, |found, _, dma| {
        let next = iova + done as u64 * PAGE;
        if found.start <= next {
            done += Target::new(found, dma, rules).unpin(next, count - done);
        }
    });
    done
}

impl Container {
    /// Asks all devices to unpin the pages that they have pinned in `range`.
    ///
    /// Their drivers call [`unpin`](Self::unpin), so the caller must not have locked any address.
    pub(crate) fn notify_dma_unmap(&self, range: Range) {
        for device in self.devices.lock().iter() {
            device.dma_unmap(range.start, range.last - range.start + 1);
        }
    }

    /// Logs which drivers may keep pages of `range` pinned after all devices were asked to unpin
    /// them. Names the first [`MAX_NAMED_DEVICES`] devices and counts the others.
    pub(crate) fn warn_pinned(&self, range: Range) {
        let Range { start, last } = range;
        let devices = self.devices.lock();
        for device in devices.iter().take(MAX_NAMED_DEVICES) {
            if !may_warn() {
                return;
            }
            dev_warn!(
                device.dev(),
                "unmap of iovas {start:#x}-{last:#x} failed: pages are still pinned, possibly by the driver of this device\n"
            );
        }
        let count = devices.iter().count();
        if count == 0 && may_warn() {
            pr_warn!(
                "unmap of iovas {start:#x}-{last:#x} failed: pages are still pinned by the driver of a closed device\n"
            );
        }
        let more = count.saturating_sub(MAX_NAMED_DEVICES);
        if more != 0 && may_warn() {
            pr_warn!(
                "unmap of iovas {start:#x}-{last:#x} failed: {more} more devices may keep pages pinned\n"
            );
        }
    }
}

/// Returns `EBUSY` while a vaddr of the container is invalid. Updating vaddrs is not supported
/// together with emulated devices.
fn check_vaddrs_valid(held: &Held<'_, Container>, what: &str) -> Result {
    if held.dmas().invalid() != 0 {
        pr_warn_once!("{what} refused: the container has an invalid vaddr; update it with VFIO_DMA_MAP_FLAG_VADDR first\n");
        return Err(EBUSY);
    }
    Ok(())
}
