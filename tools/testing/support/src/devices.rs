// SPDX-License-Identifier: GPL-2.0

//! The devices of the test machine, and their groups.

use anyhow::{
    Context,
    Result, //
};
use std::{
    fs,
    path::Path, //
};
use vfio_client::{
    Container,
    Device,
    Group,
    Iommu,
    IovaRange, //
};

/// An `edu` device: DMA in both directions, MSI, no reset.
pub const EDU: &str = "0000:00:03.0";
/// A disk in a group of its own.
pub const NVME: &str = "0000:00:04.0";
/// A second `edu`. Its group has another member.
pub const SHARED: &str = "0000:00:05.0";

/// Returns the number of the group of a device, given by its PCI address or as a platform device.
pub fn group_number(name: &str) -> Result<u32> {
    let bus = if name.contains(':') {
        "pci"
    } else {
        "platform"
    };
    let folder = Path::new("/sys/bus").join(bus).join("devices").join(name);
    Ok(Group::number_of(&folder)?)
}

/// Returns the addresses at which the IOMMU of a device takes writes for interrupts. They are in no
/// range of valid iovas.
pub fn msi_window(name: &str) -> Result<IovaRange> {
    let number = group_number(name)?;
    let path = format!("/sys/kernel/iommu_groups/{number}/reserved_regions");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let mut lines = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let window = lines.find_map(|words| match words.as_slice() {
        [start, end, "msi"] => Some((start.to_string(), end.to_string())),
        _ => None,
    });
    let (start, end) = window.with_context(|| format!("{path} has no window for interrupts"))?;
    let parse = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16);
    Ok(IovaRange {
        start: parse(&start)?,
        end: parse(&end)?,
    })
}

/// Opens the group of a device.
pub fn group(name: &str) -> Result<Group> {
    let number = group_number(name)?;
    Group::open(number).with_context(|| format!("group {number} of {name}"))
}

/// Creates a container with a backend and the group of a device, and leaves the device closed.
pub fn attached(name: &str, iommu: Iommu) -> Result<(Container, Group)> {
    let group = group(name)?;
    Ok((group.attach(iommu)?, group))
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
    pub fn with(name: &str, iommu: Iommu) -> Result<Self> {
        let (container, group) = attached(name, iommu)?;
        let device = group.device(name)?;
        Ok(Self {
            device,
            group,
            container,
        })
    }
}
