// SPDX-License-Identifier: GPL-2.0

//! Prepared requests and the files they are sent to.

use anyhow::{
    Result,
    ensure, //
};
use std::{
    mem::offset_of,
    os::fd::{
        AsFd,
        AsRawFd, //
    },
};
use support::{
    devices,
    requests::{
        MapDma,
        UnmapDma, //
    },
};
use vfio_client::{
    Bytes,
    Container,
    Group,
    Iommu,
    Memory,
    raw,
    request,
    structures::DmaUnmap, //
};

/// A size that is sufficient for any answer with its capabilities.
const ANSWER: usize = 1024;

/// The offset of the size of an unmap request, to which the kernel writes its result.
const UNMAPPED: usize = offset_of!(DmaUnmap, size);

/// A request that can be sent repeatedly.
pub struct Request {
    number: u32,
    memory: Memory,
}

impl Request {
    /// Prepares request `number` with an argument.
    pub fn new(number: u32, bytes: &Bytes) -> Result<Self> {
        let memory = Memory::anonymous(ANSWER.max(bytes.len()))?;
        memory.write(0, bytes.as_ref());
        Ok(Self { number, memory })
    }

    /// Prepares a request that maps `size` bytes at `addr` for reading and writing.
    pub fn map(addr: u64, iova: u64, size: u64) -> Result<Self> {
        let map = MapDma {
            vaddr: addr,
            iova,
            size,
            ..MapDma::default()
        };
        Self::new(request::IOMMU_MAP_DMA, &map.bytes())
    }

    /// Prepares a request that unmaps a range.
    pub fn unmap(iova: u64, size: u64) -> Result<Self> {
        Self::new(request::IOMMU_UNMAP_DMA, &UnmapDma::of(iova, size).bytes())
    }

    /// Prepares a request that unmaps everything.
    pub fn unmap_all() -> Result<Self> {
        Self::new(request::IOMMU_UNMAP_DMA, &UnmapDma::all().bytes())
    }

    /// Prepares a request for information; the other fields of its structure are 0.
    pub fn info(number: u32) -> Result<Self> {
        Self::new(number, &Bytes::new().u32(ANSWER as u32).fill(0, 36))
    }

    /// Prepares a request that adds a group to `container`.
    pub fn join(container: &Container) -> Result<Self> {
        let fd = container.as_fd().as_raw_fd();
        Self::new(request::GROUP_SET_CONTAINER, &Bytes::of(&fd))
    }

    /// Sends the request.
    pub fn send(&mut self, fd: impl AsFd) -> Result<i32> {
        Ok(raw::at(fd, self.number, &mut self.memory, 0)?)
    }

    /// Sends an unmap request, and checks that it unmapped `size` bytes.
    pub fn send_unmap(&mut self, fd: impl AsFd, size: u64) -> Result<()> {
        self.send(fd)?;
        self.check_gone(size)
    }

    /// Sends a request that unmaps everything, and checks that it unmapped `size` bytes.
    pub fn send_unmap_all(&mut self, fd: impl AsFd, size: u64) -> Result<()> {
        // The kernel stored the last result in the size field, which must be 0.
        self.set_u64(UNMAPPED, 0);
        self.send(fd)?;
        self.check_gone(size)
    }

    fn check_gone(&self, size: u64) -> Result<()> {
        let gone = self.memory.read_u64(UNMAPPED);
        ensure!(gone == size, "{gone:#x} bytes went, not {size:#x}");
        Ok(())
    }

    /// Returns a field of the argument, to which the kernel may have written.
    pub fn get_u64(&self, offset: usize) -> u64 {
        self.memory.read_u64(offset)
    }

    /// Sets a field of the argument.
    pub fn set_u64(&self, offset: usize, value: u64) {
        self.memory.write_u64(offset, value);
    }
}

/// A group in a container with a backend.
pub struct Attached {
    /// The container.
    pub container: Container,
    /// The group.
    pub group: Group,
}

impl Attached {
    /// Opens a container for the group of a device.
    pub fn new(device: &str) -> Result<Self> {
        Self::with(devices::group(device)?)
    }

    /// Opens a container for a group.
    pub fn with(group: Group) -> Result<Self> {
        let container = group.attach(Iommu::Type1v2)?;
        Ok(Self { container, group })
    }
}
