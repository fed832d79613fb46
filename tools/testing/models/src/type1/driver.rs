// SPDX-License-Identifier: GPL-2.0

//! In the shape of the backend's emulated.rs, with a driver that has a lock of its own, which it
//! holds while it pins pages, and while it is asked to give them back, as drivers of mediated
//! devices do.

use std::sync::Arc;

use kernel::{
    prelude::*,
    sync::Mutex, //
};

use kernel_ext::iova::Range;

use super::{
    super::space::{
        Held,
        RangeGuard, //
    },
    Answer,
    Container, //
};

/// The driver of an emulated device.
#[derive(Clone)]
pub(super) struct Driver {
    /// What it has pinned.
    pinned: Arc<Mutex<Vec<Range>>>,
    /// Whether it gives nothing back.
    stubborn: bool,
}

impl Driver {
    /// A driver that has pinned nothing.
    pub(super) fn new(stubborn: bool) -> Self {
        Self {
            pinned: Arc::new(Mutex::new(Vec::new())),
            stubborn,
        }
    }

    /// Pins pages, unless it has done so.
    pub(super) fn pin(&self, container: &Container, range: Range) -> Answer {
        let mut pinned = self.pinned.lock();
        if pinned.contains(&range) {
            return Ok(0);
        }
        let answer = container.pin(range)?;
        pinned.push(range);
        Ok(answer)
    }

    /// Gives pages back, if it has them.
    pub(super) fn unpin(&self, container: &Container, range: Range) -> Answer {
        let mut pinned = self.pinned.lock();
        let place = pinned.iter().position(|other| *other == range);
        let place = place.ok_or(EINVAL)?;
        pinned.swap_remove(place);
        container.unpin(range);
        Ok(0)
    }

    /// Gives back what it has of `range`.
    fn dma_unmap(&self, container: &Container, range: Range) {
        let mut pinned = self.pinned.lock();
        pinned.retain(|own| {
            let gone = !self.stubborn && own.overlaps(range);
            if gone {
                container.unpin(*own);
            }
            !gone
        });
    }
}

impl Container {
    /// Pins pages for a driver. Returns which.
    ///
    /// # Errors
    ///
    /// `EBUSY` while an address is invalid, `EINVAL` if nothing is mapped, or there is no device.
    pub(super) fn pin(&self, range: Range) -> Answer {
        let (mut guard, tracks) = self.space.lock_mappings(range, |held| {
            Self::check_vaddrs_valid(held)?;
            Ok::<_, Error>(held.layout.dirty_page_tracking)
        })?;
        if guard.with(|held| held.bisected_by(held.range())).is_some() {
            self.machine.blame("a mapping is locked in part");
        }
        let (mut next, mut pages_of) = (range.start, 0);
        let pinned = guard.try_update(range, |found, vaddr, pages| {
            vaddr.filter(|_| found.start <= next).ok_or(EINVAL)?;
            pages_of |= pages.pin(range);
            next = found.last + 1;
            Ok(())
        });
        let complete = next > range.last;
        if let Err(e) = pinned.and(complete.then_some(()).ok_or(EINVAL)) {
            if next > range.start {
                let done = Range {
                    last: next - 1,
                    ..range
                };
                Self::unpin_in(&mut guard, done, tracks);
            }
            return Err(e);
        }
        guard.with(|held| *held.mutex_data = true);
        Ok(pages_of)
    }

    /// Takes the driver's pages of `range` back.
    pub(super) fn unpin_in(guard: &mut RangeGuard<'_, Self>, range: Range, tracks: bool) {
        guard.update(range, |_, vaddr, pages| {
            if vaddr.is_some() {
                pages.unpin(range, tracks);
            }
        });
    }

    /// Asks the drivers to give back what they have pinned of `range`.
    pub(super) fn notify_dma_unmap(&self, range: Range) {
        let devices = self.devices.lock();
        for driver in devices.iter() {
            driver.dma_unmap(self, range);
        }
    }

    /// Refuses with `EBUSY` while an address of the program's is invalid.
    pub(super) fn check_vaddrs_valid(held: &Held<'_, Self>) -> Result {
        if held.dmas().invalid() != 0 {
            return Err(EBUSY);
        }
        Ok(())
    }
}
