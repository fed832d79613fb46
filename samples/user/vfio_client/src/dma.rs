// SPDX-License-Identifier: GPL-2.0

//! Memory that is mapped for devices for as long as it lives.

use crate::{
    Container,
    Errno,
    Error,
    Iommufd,
    IovaAllocator,
    IovaRange,
    MapFlags,
    Memory,
    PAGE_SIZE,
    Result, //
};
use std::{
    fmt::Debug,
    ops::Deref, //
};

mod sealed {
    pub trait Sealed {}

    impl Sealed for super::Container {}
    impl Sealed for super::Ioas<'_> {}
}

/// An address space for DMA: a [`Container`] with a type 1 backend, or an [`Ioas`].
///
/// Other crates can't implement it: memory is freed because an `unmap` succeeded.
pub trait AddressSpace: Debug + sealed::Sealed {
    /// Maps all of `memory` at `iova`.
    fn map(&self, iova: u64, memory: &Memory, flags: MapFlags) -> Result;

    /// Unmaps a range. Returns the number of bytes unmapped.
    fn unmap(&self, iova: u64, size: u64) -> Result<u64>;

    /// Queries the iovas that can be mapped, which the devices limit.
    fn ranges(&self) -> Result<Vec<IovaRange>>;
}

impl AddressSpace for Container {
    fn map(&self, iova: u64, memory: &Memory, flags: MapFlags) -> Result {
        Self::map(self, iova, memory, flags)
    }

    fn unmap(&self, iova: u64, size: u64) -> Result<u64> {
        Self::unmap(self, iova, size)
    }

    fn ranges(&self) -> Result<Vec<IovaRange>> {
        Ok(self.info()?.ranges())
    }
}

/// An address space of an [`Iommufd`]. [`Iommufd::address_space`] returns one.
#[derive(Clone, Copy, Debug)]
pub struct Ioas<'i> {
    iommufd: &'i Iommufd,
    id: u32,
}

impl<'i> Ioas<'i> {
    pub(crate) fn new(iommufd: &'i Iommufd, id: u32) -> Self {
        Self { iommufd, id }
    }

    /// Returns the number of the IOAS.
    pub fn id(&self) -> u32 {
        self.id
    }
}

impl AddressSpace for Ioas<'_> {
    fn map(&self, iova: u64, memory: &Memory, flags: MapFlags) -> Result {
        self.iommufd.map(self.id, iova, memory, flags)
    }

    fn unmap(&self, iova: u64, size: u64) -> Result<u64> {
        self.iommufd.unmap(self.id, iova, size)
    }

    fn ranges(&self) -> Result<Vec<IovaRange>> {
        Ok(self.iommufd.iova_ranges(self.id)?.ranges)
    }
}

/// Memory that is mapped at an iova. Dropping it unmaps the memory, then frees it.
///
/// # Examples
///
/// ```no_run
/// use vfio_client::{AddressSpace, DmaBuffer, Group, Iommu, IovaAllocator, pci};
///
/// # fn main() -> vfio_client::Result {
/// let group = Group::open(pci::group_of("0000:01:00.0")?)?;
/// let container = group.attach(Iommu::Type1v2)?;
/// let mut iovas = IovaAllocator::new(&container.ranges()?, 0x10_0000);
/// let buffer = DmaBuffer::new(&container, &mut iovas, 4096)?;
/// buffer.write(0, b"a command");
/// println!("tell the device that its command is at {:#x}", buffer.iova());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DmaBuffer<'s, S: AddressSpace = Container> {
    space: &'s S,
    iova: u64,
    memory: Memory,
}

impl<'s, S: AddressSpace> DmaBuffer<'s, S> {
    /// Allocates and maps `len` bytes of zeroed memory, rounded up to pages. Devices can read and
    /// write it.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if `iovas` has no room, and those of [`AddressSpace::map`].
    pub fn new(space: &'s S, iovas: &mut IovaAllocator, len: usize) -> Result<Self> {
        let memory = Memory::anonymous(len)?;
        let iova = iovas
            .take(memory.len() as u64, PAGE_SIZE as u64)
            .ok_or_else(|| Error::new("choice of an address", Errno::ENOSPC))?;
        space.map(iova, &memory, MapFlags::ReadWrite)?;
        Ok(Self {
            space,
            iova,
            memory,
        })
    }

    /// Returns the iova of the memory.
    pub fn iova(&self) -> u64 {
        self.iova
    }
}

impl<S: AddressSpace> Deref for DmaBuffer<'_, S> {
    type Target = Memory;

    fn deref(&self) -> &Memory {
        &self.memory
    }
}

impl<S: AddressSpace> Drop for DmaBuffer<'_, S> {
    fn drop(&mut self) {
        let len = self.memory.len() as u64;
        // If this fails, the mapping lives as long as the address space, and the addresses of the
        // memory are not used again.
        if self.space.unmap(self.iova, len) == Ok(len) {
            self.memory.was_unmapped();
        }
    }
}
