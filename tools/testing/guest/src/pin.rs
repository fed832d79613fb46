// SPDX-License-Identifier: GPL-2.0

//! The test driver that pins pages of its user; see `tools/testing/modules/vfio_pin_test.h`.

use crate::env::{
    EDU,
    group, //
};
use anyhow::{
    Context,
    Result, //
};
use std::fs;
use vfio_client::{
    Bytes,
    Container,
    Device,
    Errno,
    Group,
    Iommu,
    raw, //
};

/// The name of the device.
pub const NAME: &str = "vfio_pin_test.0";

/// The device reads the pages.
pub const READ: u32 = 1;
/// The device writes the pages.
pub const WRITE: u32 = 2;

const fn number(n: u32) -> u32 {
    ((b'P' as u32) << 8) | n
}

const PIN: u32 = number(0);
const UNPIN: u32 = number(1);
const POKE: u32 = number(2);
const DMA_READ: u32 = number(3);
const DMA_WRITE: u32 = number(4);
const MISBEHAVE: u32 = number(5);
const PINNED: u32 = number(6);
const UNMAPS: u32 = number(7);
const UNPIN_STRAY: u32 = number(8);

const HEADER: usize = 24;

/// Returns the number of the group.
pub fn group_number() -> Result<u32> {
    let link = fs::read_link(format!("/sys/bus/platform/devices/{NAME}/iommu_group"))?;
    let name = link.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.parse().ok())
        .context("the group has no number")
}

/// Opens the group.
pub fn pin_group() -> Result<Group> {
    Ok(Group::open(group_number()?)?)
}

/// The device.
#[derive(Debug)]
pub struct Pinner(Device);

impl Pinner {
    fn send(&self, nr: u32, iova: u64, count: u32, prot: u32) -> Result<i32, Errno> {
        let mut bytes = Bytes::new().u64(iova).u32(count).u32(prot).u64(0);
        raw::bytes(&self.0, nr, &mut bytes)
    }

    /// Pins pages; returns how many, and the first word of the first of them.
    pub fn pin(&self, iova: u64, count: u32, prot: u32) -> Result<(i32, u64), Errno> {
        let mut bytes = Bytes::new().u64(iova).u32(count).u32(prot).u64(0);
        let pinned = raw::bytes(&self.0, PIN, &mut bytes)?;
        Ok((pinned, bytes.get_u64(16)))
    }

    /// Unpins those pages of a range which are pinned.
    pub fn unpin(&self, iova: u64, count: u32) -> Result<i32, Errno> {
        self.send(UNPIN, iova, count, 0)
    }

    /// Unpins pages whether they are pinned or not.
    pub fn unpin_stray(&self, iova: u64, count: u32) -> Result<i32, Errno> {
        self.send(UNPIN_STRAY, iova, count, 0)
    }

    /// Writes the first word of a pinned page, as a device does.
    pub fn poke(&self, iova: u64, word: u64) -> Result<i32, Errno> {
        let mut bytes = Bytes::new().u64(iova).u32(1).u32(0).u64(word);
        raw::bytes(&self.0, POKE, &mut bytes)
    }

    /// Has the driver read memory.
    pub fn read(&self, iova: u64, len: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = Bytes::new().u64(iova).u32(len as u32).u32(0).u64(0);
        bytes = bytes.fill(0, len);
        raw::bytes(&self.0, DMA_READ, &mut bytes)?;
        Ok(bytes.as_ref()[HEADER..].to_vec())
    }

    /// Has the driver write memory.
    pub fn write(&self, iova: u64, data: &[u8]) -> Result<i32, Errno> {
        let mut bytes = Bytes::new().u64(iova).u32(data.len() as u32).u32(0).u64(0);
        bytes = bytes.raw(data);
        raw::bytes(&self.0, DMA_WRITE, &mut bytes)
    }

    /// Makes the driver keep pages that it is told to give up.
    pub fn misbehave(&self, on: bool) -> Result<i32, Errno> {
        raw::value(&self.0, MISBEHAVE, on.into())
    }

    /// Returns how many pages are pinned.
    pub fn pinned(&self) -> Result<i32, Errno> {
        raw::none(&self.0, PINNED)
    }

    /// Returns how often the driver was told to give up pages.
    pub fn unmaps(&self) -> Result<i32, Errno> {
        raw::none(&self.0, UNMAPS)
    }
}

/// The device, in a container.
#[derive(Debug)]
pub struct Pinning {
    /// The device.
    pub pinner: Pinner,
    /// Its group, which must stay open as the device may be closed.
    _group: Group,
    /// The container.
    pub container: Container,
}

impl Pinning {
    /// Opens it in a container without any physical device.
    pub fn alone(iommu: Iommu) -> Result<Self> {
        let container = Container::open()?;
        let group = pin_group()?;
        group.set_container(&container)?;
        container.set_iommu(iommu)?;
        let pinner = Pinner(group.device(NAME)?);
        Ok(Self {
            pinner,
            _group: group,
            container,
        })
    }

    /// Opens it, with exact unmap rules.
    pub fn new() -> Result<Self> {
        Self::alone(Iommu::Type1v2)
    }

    /// Brings a physical device into the container.
    pub fn join_edu(&self) -> Result<(Group, Device)> {
        let other = group(EDU)?;
        other.set_container(&self.container)?;
        let device = other.device(EDU)?;
        Ok((other, device))
    }
}
