// SPDX-License-Identifier: GPL-2.0

//! The state before two requests meet, and checks after them.

use super::{
    meanwhile::Meanwhile,
    place::Place,
    requests::{
        ASIDE,
        Ask,
        INVALIDATED,
        PART,
        THERE,
        start_tracking, //
    },
};
use crate::{
    env::{
        EDU,
        NVME,
        attached,
        group, //
    },
    pin::{
        Pinner,
        Pinning, //
    },
};
use anyhow::Result;
use std::mem::{
    forget,
    replace, //
};
use support::machine::{
    locked_kib,
    pinned_pages, //
};
use vfio_client::{
    Container,
    Group,
    Iommu,
    Memory,
    PAGE_SIZE,
    Userfault,
    pci, //
};

/// A container with a group.
#[derive(Debug)]
pub struct Scene {
    /// The container. It has [`ASIDE`] and [`INVALIDATED`], and [`PART`] unless [`THERE`] is to be
    /// mapped. With a driver, it has all of [`THERE`].
    pub container: Container,
    /// The group in the container.
    pub first: Group,
    /// Another group. It is in the container only if it is to leave it.
    pub second: Group,
    /// The device of the driver that pins pages, if one of the requests is the driver's. In that
    /// case the first group is the group of the device.
    pub driver: Option<Pinner>,
    /// The memory at which requests stop.
    pub fault: Userfault,
    /// Memory for all other purposes.
    pub memory: Memory,
    /// A group behind an IOMMU, in addition to the group of the driver.
    beside: Option<Group>,
    /// The number of pages pinned before.
    pinned: i64,
}

impl Scene {
    /// Creates what `place` and the request sent `meanwhile` need.
    pub fn new(place: Place, meanwhile: Option<Meanwhile>) -> Result<Self> {
        let pinned = pinned_pages()?;
        let mut fault = Userfault::new(THERE.pages as usize)?;
        let memory = Memory::anonymous(THERE.pages as usize * PAGE_SIZE)?;
        let mut beside = None;
        let (container, first, driver, second) = if place.needs_driver() {
            let Pinning {
                pinner,
                group: first,
                container,
            } = Pinning::new()?;
            (container, first, Some(pinner), group(EDU)?)
        } else if meanwhile.is_some_and(Meanwhile::needs_driver) {
            let Pinning {
                pinner,
                group: first,
                container,
            } = Pinning::new()?;
            let edu = group(EDU)?;
            edu.set_container(&container)?;
            beside = Some(edu);
            (container, first, Some(pinner), group(NVME)?)
        } else {
            let (container, first) = attached(EDU, Iommu::Type1v2)?;
            (container, first, None, group(NVME)?)
        };
        if meanwhile.is_some_and(Meanwhile::needs_second) {
            second.set_container(&container)?;
        }
        if meanwhile != Some(Meanwhile::Start) || place.needs_tracking() {
            start_tracking(&container)?;
        }
        ASIDE.map(memory.addr()).ask(&container)?;
        if place.needs_driver() {
            // Without an IOMMU, the memory is not accessed.
            THERE.map(fault.addr()).ask(&container)?;
        } else {
            INVALIDATED.map(memory.addr()).ask(&container)?;
            if meanwhile == Some(Meanwhile::UpdateAside) {
                INVALIDATED.invalidate_vaddr().ask(&container)?;
            }
            if !place.maps() {
                PART.map(memory.addr()).ask(&container)?;
            }
        }
        place.arm(&container, &mut fault)?;
        Ok(Self {
            container,
            first,
            second,
            driver,
            fault,
            memory,
            beside,
            pinned,
        })
    }

    /// Replaces a descriptor of the container that was closed by another one.
    pub fn replace_closed(mut self, another: Container) -> Self {
        forget(replace(&mut self.container, another));
        self
    }

    /// Checks that exactly the mapped memory is charged, and that nothing is left behind.
    pub fn end(self) -> Result<()> {
        if let Some(driver) = &self.driver {
            driver.unpin(0, u32::MAX)?;
        }
        let charged = locked_kib() * 1024;
        // If its device was unbound, the group is gone, too.
        let joined = self.second.status().is_ok_and(|status| status & 2 != 0);
        let has_iommu = self.driver.is_none() || self.beside.is_some() || joined;
        let unmapped = self.container.unmap_all()?;
        let expected = if has_iommu { unmapped } else { 0 };
        assert_eq!(
            charged, expected,
            "bytes charged and bytes mapped for an IOMMU"
        );
        assert_eq!(locked_kib(), 0, "KiB charged after everything was unmapped");
        assert_eq!(
            pinned_pages()?,
            self.pinned,
            "pages pinned after everything was unmapped"
        );
        let left = self.container.info()?.dma_avail();
        assert_eq!(
            left,
            Some(65535),
            "a mapping is left that cannot be unmapped"
        );
        drop(self);
        if pci::driver(NVME).is_none() {
            pci::bind(NVME, "vfio-pci")?;
        }
        Ok(())
    }
}
