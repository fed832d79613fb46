// SPDX-License-Identifier: GPL-2.0

//! The state before two requests meet, and checks after them.

use super::{
    meanwhile::Meanwhile,
    place::Place,
    words::{
        self,
        ASIDE,
        PART,
        START,
        THERE,
        VADDR,
        WITHDRAWN, //
    },
};
use crate::{
    env::{
        EDU,
        NVME,
        attached,
        group, //
    },
    leak::{
        locked_kib,
        pinned_pages, //
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
    /// The container. It has [`ASIDE`] and [`WITHDRAWN`], and [`PART`] unless [`THERE`] is to be
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
            words::dirty(&container, START)?;
        }
        words::map(&container, ASIDE, memory.addr())?;
        if place.needs_driver() {
            // Without an IOMMU, the memory is not accessed.
            words::map(&container, THERE, fault.addr())?;
        } else {
            words::map(&container, WITHDRAWN, memory.addr())?;
            if meanwhile == Some(Meanwhile::GiveAside) {
                words::unmap(&container, WITHDRAWN, VADDR)?;
            }
            if !place.maps() {
                words::map(&container, PART, memory.addr())?;
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
        assert_eq!(charged, expected, "charged, and mapped by an IOMMU");
        assert_eq!(locked_kib(), 0, "charged after all was unmapped");
        assert_eq!(
            pinned_pages()?,
            self.pinned,
            "pinned after all was unmapped"
        );
        let left = self.container.info()?.dma_avail();
        assert_eq!(left, Some(65535), "more mappings than can be unmapped");
        drop(self);
        if pci::driver(NVME).is_none() {
            pci::bind(NVME, "vfio-pci")?;
        }
        Ok(())
    }
}
