// SPDX-License-Identifier: GPL-2.0

//! Emulated devices, which have no IOMMU: their drivers ask for pages by device address, or let the kernel
//! copy.

mod target;

use core::convert::Infallible;

use kernel::{
    dev_warn,
    page::PAGE_SIZE,
    pr_warn_once,
    prelude::*,
    sync::atomic::Relaxed, //
};

use iommu_group::ranges::Range;

use kernel_ext::{
    iommu::{
        Group,
        Prot, //
    },
    iommu_driver::{
        PageSlots,
        Transfer, //
    },
    mm::may_warn, //
};

use crate::{
    container::Container,
    space::{
        Alone,
        Held,
        RangeGuard, //
    }, //
};

use self::target::{
    Rules,
    Source,
    Target, //
};

/// The size of a page.
const PAGE: u64 = PAGE_SIZE as u64;

impl Container {
    /// Pins pages for a device of `group`.
    ///
    /// # Errors
    ///
    /// `EACCES` in the first version of the interface, `EOVERFLOW` past the last address, `EBUSY`
    /// while an address is invalid, `EINVAL` if no device could be told to give pages back or
    /// nothing is mapped, `EPERM` if the mapping doesn't allow such accesses, `ENODEV` if the owner has
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
        let range = Range::of_size(iova, pages.bytes()?)?;
        let (mut guard, rules) = self.space.lock_mappings(range, |held| {
            refuse_while_invalid(held, "vfio_pin_pages")?;
            if !self.devices.any() {
                return Err(EINVAL);
            }
            Ok(Rules::of(held.layout))
        })?;
        let mut done = 0;
        let pinned = guard.try_update(range, |found, vaddr, dma| {
            let next = iova + done as u64 * PAGE;
            let vaddr = vaddr.filter(|_| found.start <= next).ok_or(EINVAL)?;
            Target::new(found, dma, rules).pin(next, vaddr, prot, pages, &mut done)
        });
        let complete = done == pages.len();
        if let Err(e) = pinned.and(complete.then_some(()).ok_or(EINVAL)) {
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
                    member.pins.store(true, Relaxed);
                }
            }
        });
        Ok(())
    }

    /// Gives back `count` pages that a driver has pinned in `range`. Returns how many of them are
    /// in a mapping.
    pub(crate) fn unpin(&self, range: Range, count: usize) -> usize {
        let rules = |held: &mut Alone<'_, Self>| Ok::<_, Infallible>(Rules::of(held.layout));
        let Ok((mut guard, rules)) = self.space.lock_mappings(range, rules);
        unpin_in(&mut guard, rules, range.start, count)
    }

    /// Copies between kernel memory and what is mapped from `iova` on.
    ///
    /// # Errors
    ///
    /// `EBUSY` while an address is invalid, `EINVAL` where nothing is mapped, `EPERM` if devices may
    /// not read there, or not write for a write, or the owner has exited; `EFAULT`. Some may be copied
    /// then.
    pub(crate) fn copy(&self, iova: u64, mut data: Transfer<'_>) -> Result {
        let range = Range::of_size(iova, data.len() as u64).map_err(|_| EINVAL)?;
        let mut done = 0;
        if matches!(data, Transfer::Write(_)) {
            // Pages that are written are noted in their mapping, so nobody shares that.
            let (mut guard, rules) = self.space.lock_mappings(range, |held| {
                refuse_while_invalid(held, "vfio_dma_rw")?;
                Ok::<_, Error>(Rules::of(held.layout))
            })?;
            guard.try_update(range, |found, vaddr, dma| {
                let next = iova + done as u64;
                let vaddr = vaddr.filter(|_| found.start <= next).ok_or(EINVAL)?;
                let copied = Source::new(found, vaddr, dma).copy(next, &mut data, &mut done);
                if copied != Err(EPERM) {
                    // A copy that fails may have written some.
                    Target::new(found, dma, rules).written(next, found.last.min(range.last));
                }
                copied
            })?;
        } else {
            let begin = |held: &mut Held<'_, Self>| refuse_while_invalid(held, "vfio_dma_rw");
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

/// Gives back `count` pages that a driver has pinned from `iova` on, up to the first that is in no mapping.
/// All of these mappings are locked. Returns how many.
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
    /// Asks all devices to give back what they have pinned of `range`.
    ///
    /// They call [`unpin`](Self::unpin), so no addresses are locked here.
    pub(crate) fn notify(&self, range: Range) {
        for device in self.devices.lock().iter() {
            device.dma_unmap(range.start, range.last - range.start + 1);
        }
    }

    /// Tells in the log who may keep pages of `range`, which all devices were asked for in vain.
    pub(crate) fn blame(&self, range: Range) {
        if !may_warn() {
            return;
        }
        let Range { start, last } = range;
        let devices = self.devices.lock();
        for device in devices.iter() {
            dev_warn!(
                device.dev(),
                "vfio: the unmap of {start:#x}-{last:#x} fails: a driver keeps pages, maybe this one\n"
            );
        }
        if devices.iter().next().is_none() {
            pr_warn!(
                "the unmap of {start:#x}-{last:#x} fails: a driver has left pages of a closed device pinned\n"
            );
        }
    }
}

/// Refuses with `EBUSY` while an address of the program's is invalid; such programs and these devices
/// don't go together.
fn refuse_while_invalid(held: &Held<'_, Container>, what: &str) -> Result {
    if held.has_invalid_vaddr() {
        pr_warn_once!("{what} is not allowed while a program updates its addresses\n");
        return Err(EBUSY);
    }
    Ok(())
}
