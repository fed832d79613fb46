// SPDX-License-Identifier: GPL-2.0

//! Prepared requests and the files they are sent to.

use anyhow::{
    Result,
    ensure, //
};
use std::os::fd::{
    AsFd,
    AsRawFd, //
};
use vfio_client::{
    Bytes,
    Container,
    Group,
    Iommu,
    MapFlags,
    Memory,
    pci,
    raw,
    request,
    uapi::VFIO_DMA_UNMAP_FLAG_ALL, //
};

/// A size that is sufficient for any answer with its capabilities.
const ANSWER: usize = 1024;

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
        let bytes = Bytes::new()
            .u32(32)
            .u32(MapFlags::ReadWrite.bits())
            .u64(addr)
            .u64(iova)
            .u64(size);
        Self::new(request::IOMMU_MAP_DMA, &bytes)
    }

    /// Prepares a request that unmaps a range.
    pub fn unmap(iova: u64, size: u64) -> Result<Self> {
        let bytes = Bytes::new().u32(24).u32(0).u64(iova).u64(size);
        Self::new(request::IOMMU_UNMAP_DMA, &bytes)
    }

    /// Prepares a request that unmaps everything.
    pub fn unmap_all() -> Result<Self> {
        let bytes = Bytes::new()
            .u32(24)
            .u32(VFIO_DMA_UNMAP_FLAG_ALL)
            .u64(0)
            .u64(0);
        Self::new(request::IOMMU_UNMAP_DMA, &bytes)
    }

    /// Prepares a request for information; the other fields of its structure are 0.
    pub fn info(number: u32) -> Result<Self> {
        Self::new(number, &Bytes::new().u32(ANSWER as u32).fill(0, 36))
    }

    /// Prepares a request that adds a group to `container`.
    pub fn join(container: &Container) -> Result<Self> {
        let fd = container.as_fd().as_raw_fd();
        let bytes = Bytes::new().raw(&fd.to_ne_bytes());
        Self::new(request::GROUP_SET_CONTAINER, &bytes)
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
        self.set_u64(16, 0);
        self.send(fd)?;
        self.check_gone(size)
    }

    fn check_gone(&self, size: u64) -> Result<()> {
        let gone = self.memory.read_u64(16);
        ensure!(gone == size, "{gone:#x} bytes went, not {size:#x}");
        Ok(())
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
        Self::with(Group::open(pci::group_of(device)?)?)
    }

    /// Opens a container for a group.
    pub fn with(group: Group) -> Result<Self> {
        let container = Container::open()?;
        group.set_container(&container)?;
        container.set_iommu(Iommu::Type1v2)?;
        Ok(Self { container, group })
    }
}
