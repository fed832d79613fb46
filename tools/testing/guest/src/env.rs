// SPDX-License-Identifier: GPL-2.0

//! The machine in which the cases run.

use crate::stall::LIMIT;
use anyhow::{
    Context,
    Result,
    ensure, //
};
use vfio_client::{
    Container,
    Device,
    Errno,
    Group,
    Iommu,
    pci,
    wait::until, //
};

/// The device that most cases use: DMA in both directions, MSI, no reset.
pub const EDU: &str = "0000:00:03.0";
/// A disk in a group of its own.
pub const NVME: &str = "0000:00:04.0";
/// A second `edu`. Its group has another member.
pub const SHARED: &str = "0000:00:05.0";
/// The other member of the group of [`SHARED`]. It is bound to a host driver.
pub const SIBLING: &str = "0000:00:05.1";

/// Opens the group of a device.
pub fn group(bdf: &str) -> Result<Group> {
    let number = pci::group_of(bdf)?;
    Group::open(number).with_context(|| format!("group {number} of {bdf}"))
}

/// Waits until a device of a group can no longer be opened, because it is being removed. Returns
/// whether that is so.
pub fn withdrawn(group: &Group, name: &str) -> Result<bool> {
    Ok(until(LIMIT, || match group.device(name) {
        Ok(_) => Ok(false),
        Err(error) if error.errno() == Errno::ENODEV => Ok(true),
        Err(error) => Err(error),
    })?)
}

/// A container with one group and an open device, from which most cases start.
#[derive(Debug)]
pub struct Setup {
    /// An open device of the group.
    pub device: Device,
    /// The group.
    pub group: Group,
    /// The container, with a backend.
    pub container: Container,
}

impl Setup {
    /// Opens `edu` with the exact unmap rules of type1v2.
    pub fn new() -> Result<Self> {
        Self::with(EDU, Iommu::Type1v2)
    }

    /// Opens a device.
    pub fn with(bdf: &str, iommu: Iommu) -> Result<Self> {
        let (container, group) = attached(bdf, iommu)?;
        let device = group.device(bdf)?;
        Ok(Self {
            device,
            group,
            container,
        })
    }
}

/// Creates a container with a backend and the group of a device, and leaves the device closed.
pub fn attached(bdf: &str, iommu: Iommu) -> Result<(Container, Group)> {
    let container = Container::open()?;
    let group = group(bdf)?;
    group.set_container(&container)?;
    container.set_iommu(iommu)?;
    Ok((container, group))
}

/// Checks that this is the expected machine.
pub fn check() -> Result<()> {
    for bdf in [EDU, NVME, SHARED] {
        let driver = pci::driver(bdf);
        ensure!(
            driver.as_deref() == Some("vfio-pci"),
            "{bdf} must be bound to vfio-pci, but its driver is {driver:?}"
        );
    }
    Ok(())
}
