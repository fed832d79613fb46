// SPDX-License-Identifier: GPL-2.0

//! The VFIO side: container, group, device and iova allocation.

use anyhow::{
    Context,
    Result,
    ensure, //
};
use std::cell::RefCell;
use vfio_client::{
    Container,
    Device,
    DmaBuffer,
    Group,
    Iommu,
    IovaAllocator,
    check_page_size,
    pci, //
};

/// The first iova. Any address works; this one does not look like a physical address.
const FIRST_IOVA: u64 = 0x4000_0000;

/// An open controller.
///
/// The fields are declared in the order in which they must be closed.
#[derive(Debug)]
pub struct Session {
    device: Device,
    group: Group,
    container: Container,
    iovas: RefCell<IovaAllocator>,
    bdf: String,
    group_number: u32,
}

impl Session {
    /// Opens the controller at a PCI address.
    pub fn open(bdf: &str) -> Result<Self> {
        check_page_size()?;
        let driver = pci::driver(bdf);
        ensure!(
            driver.as_deref() == Some("vfio-pci"),
            "{bdf} must be bound to vfio-pci, but its driver is {}",
            driver.as_deref().unwrap_or("none")
        );
        let group_number = pci::group_of(bdf).context("the device has no IOMMU group")?;
        let group = Group::open(group_number)?;
        ensure!(
            group.status()? & 1 != 0,
            "group {group_number} is not viable: {} must all be bound to vfio-pci, or to nothing",
            pci::members(group_number)?.join(", ")
        );
        let container = group.attach(Iommu::Type1v2)?;
        let device = group.device(bdf)?;
        let ranges = container.info()?.ranges();
        Ok(Self {
            device,
            group,
            container,
            iovas: RefCell::new(IovaAllocator::new(&ranges, FIRST_IOVA)),
            bdf: bdf.to_owned(),
            group_number,
        })
    }

    /// Returns the device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Returns the group.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Returns the container.
    pub fn container(&self) -> &Container {
        &self.container
    }

    /// Returns the PCI address.
    pub fn bdf(&self) -> &str {
        &self.bdf
    }

    /// Returns the group number.
    pub fn group_number(&self) -> u32 {
        self.group_number
    }

    /// Allocates memory that is mapped for the controller.
    pub fn dma(&self, len: usize) -> Result<DmaBuffer<'_>> {
        let mut iovas = self.iovas.borrow_mut();
        Ok(DmaBuffer::new(&self.container, &mut iovas, len)?)
    }

    /// Returns an iova at which `len` bytes are never mapped.
    pub fn unmapped_iova(&self, len: u64) -> Result<u64> {
        let mut iovas = self.iovas.borrow_mut();
        iovas.take(len, len).context("no address left")
    }
}
