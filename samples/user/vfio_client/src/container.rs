// SPDX-License-Identifier: GPL-2.0

//! Containers: address spaces for DMA.

#[cfg(feature = "testing")]
use crate::Arena;
use crate::{
    Capability, Error, Memory, Result, abi, chain,
    query::query,
    request,
    structures::{
        CapHeader,
        DmaMap,
        DmaUnmap,
        Type1Info,
        argsz, //
    },
    uapi::{
        VFIO_DMA_MAP_FLAG_READ,
        VFIO_DMA_MAP_FLAG_WRITE,
        VFIO_DMA_UNMAP_FLAG_ALL,
        VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
        VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
        VFIO_TYPE1_IOMMU,
        VFIO_TYPE1v2_IOMMU,
        vfio_iommu_type1_info_cap_iova_range, //
    },
};
use std::{
    fs::File,
    mem::offset_of,
    os::fd::{
        AsFd,
        BorrowedFd,
        OwnedFd, //
    },
};
use zerocopy::{
    FromBytes,
    IntoBytes, //
};

/// An IOMMU backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Iommu {
    /// Type 1, with the unmap rules of the first version.
    Type1,
    /// Type 1, with exact unmap rules.
    Type1v2,
}

impl Iommu {
    /// Returns the number of the backend in the interface.
    pub fn number(self) -> u32 {
        match self {
            Self::Type1 => VFIO_TYPE1_IOMMU,
            Self::Type1v2 => VFIO_TYPE1v2_IOMMU,
        }
    }
}

/// The access that devices have to mapped memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapFlags {
    /// Devices can read it.
    Read,
    /// Devices can write it.
    Write,
    /// Devices can read and write it.
    ReadWrite,
}

impl MapFlags {
    /// Returns the flags of the interface.
    pub fn bits(self) -> u32 {
        match self {
            Self::Read => VFIO_DMA_MAP_FLAG_READ,
            Self::Write => VFIO_DMA_MAP_FLAG_WRITE,
            Self::ReadWrite => VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
        }
    }
}

/// A range of addresses with inclusive bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes)]
#[repr(C)]
pub struct IovaRange {
    /// The first address.
    pub start: u64,
    /// The last address.
    pub end: u64,
}

/// The result of IOMMU_GET_INFO.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IommuInfo {
    /// Flags that tell which fields are valid.
    pub flags: u32,
    /// The bitmap of supported page sizes.
    pub page_sizes: u64,
    /// The capabilities.
    pub caps: Vec<Capability>,
}

impl IommuInfo {
    /// Returns the iova ranges that can be mapped.
    pub fn ranges(&self) -> Vec<IovaRange> {
        let Some(cap) = self.cap(VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE) else {
            return Vec::new();
        };
        // The body follows the header.
        const FIRST: usize =
            offset_of!(vfio_iommu_type1_info_cap_iova_range, iova_ranges) - size_of::<CapHeader>();
        let ranges = cap.body.as_ref().get(FIRST..).unwrap_or_default();
        let ranges = ranges.chunks_exact(size_of::<IovaRange>());
        ranges
            .filter_map(|range| IovaRange::read_from_bytes(range).ok())
            .take(cap.body.get_u32(0) as usize)
            .collect()
    }

    /// Returns the number of mappings that are still available.
    pub fn dma_avail(&self) -> Option<u32> {
        self.cap(VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL)
            .map(|cap| cap.body.get_u32(0))
    }

    /// Returns the capability with the given id.
    pub fn cap(&self, id: u32) -> Option<&Capability> {
        self.caps.iter().find(|cap| u32::from(cap.id) == id)
    }
}

/// An open `/dev/vfio/vfio`: an address space for the DMA of the devices of its groups.
///
/// What is mapped in it stays mapped until it is unmapped, or the last descriptor of the container
/// and of its groups and devices is closed.
///
/// # Examples
///
/// ```no_run
/// use vfio_client::{Group, Iommu, MapFlags, Memory, pci};
///
/// # fn main() -> vfio_client::Result {
/// let group = Group::open(pci::group_of("0000:01:00.0")?)?;
/// let container = group.attach(Iommu::Type1v2)?;
/// let memory = Memory::anonymous(1 << 20)?;
/// container.map(0x10_0000, &memory, MapFlags::ReadWrite)?;
/// // The device can access the memory now, at 0x10_0000.
/// assert_eq!(container.unmap(0x10_0000, 1 << 20)?, 1 << 20);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Container(OwnedFd);

impl Container {
    /// Opens a new container.
    pub fn open() -> Result<Self> {
        File::options()
            .read(true)
            .write(true)
            .open("/dev/vfio/vfio")
            .map(|file| Self(file.into()))
            .map_err(|error| Error::from_io("/dev/vfio/vfio", &error))
    }

    /// Takes ownership of an existing descriptor.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Returns the version of the interface.
    pub fn api_version(&self) -> Result<i32> {
        abi::ioctl_value(self, request::GET_API_VERSION, 0)
            .map_err(Error::during("GET_API_VERSION"))
    }

    /// Queries an extension. Returns 0 if it is not supported.
    pub fn check_extension(&self, extension: u32) -> Result<i32> {
        abi::ioctl_value(self, request::CHECK_EXTENSION, extension.into())
            .map_err(Error::during("CHECK_EXTENSION"))
    }

    /// Sets the IOMMU backend.
    pub fn set_iommu(&self, iommu: Iommu) -> Result {
        abi::ioctl_value(self, request::SET_IOMMU, iommu.number().into())
            .map(drop)
            .map_err(Error::during("SET_IOMMU"))
    }

    /// Queries page sizes and capabilities.
    pub fn info(&self) -> Result<IommuInfo> {
        let asked = Type1Info::default();
        let bytes = query(self, request::IOMMU_GET_INFO, "IOMMU_GET_INFO", &asked)?;
        let info: Type1Info = bytes.get(0);
        Ok(IommuInfo {
            flags: info.flags,
            page_sizes: info.iova_pgsizes,
            caps: chain(bytes.as_ref(), info.cap_offset),
        })
    }

    /// Maps all of `memory` at `iova`.
    pub fn map(&self, iova: u64, memory: &Memory, flags: MapFlags) -> Result {
        self.map_part(iova, memory, 0, memory.len(), flags)
    }

    /// Maps `len` bytes from `offset` of `memory` at `iova`.
    ///
    /// # Panics
    ///
    /// If these bytes are not all in `memory`.
    #[track_caller]
    pub fn map_part(
        &self,
        iova: u64,
        memory: &Memory,
        offset: usize,
        len: usize,
        flags: MapFlags,
    ) -> Result {
        self.map_addresses(iova, address_in(memory, offset, len), len, flags)
    }

    /// Maps a piece of `arena` at `iova`.
    ///
    /// # Panics
    ///
    /// If the piece is not in the arena.
    #[cfg(feature = "testing")]
    #[track_caller]
    pub fn map_arena(
        &self,
        iova: u64,
        arena: &Arena,
        piece: std::ops::Range<usize>,
        flags: MapFlags,
    ) -> Result {
        let vaddr = arena.addr().saturating_add(piece.start as u64);
        self.map_addresses(iova, vaddr, piece.len(), flags)
    }

    /// Maps `len` bytes at the address `vaddr` to `iova`.
    #[track_caller]
    fn map_addresses(&self, iova: u64, vaddr: u64, len: usize, flags: MapFlags) -> Result {
        let mut map = DmaMap {
            argsz: argsz::<DmaMap>(),
            flags: flags.bits(),
            vaddr,
            iova,
            size: len as u64,
        };
        abi::ioctl_bytes(self, request::IOMMU_MAP_DMA, map.as_mut_bytes())
            .map(drop)
            .map_err(Error::during("IOMMU_MAP_DMA"))
    }

    /// Unmaps a range. Returns the number of bytes unmapped.
    pub fn unmap(&self, iova: u64, size: u64) -> Result<u64> {
        self.unmap_flags(iova, size, 0)
    }

    /// Unmaps everything. Returns the number of bytes unmapped.
    pub fn unmap_all(&self) -> Result<u64> {
        self.unmap_flags(0, 0, VFIO_DMA_UNMAP_FLAG_ALL)
    }

    fn unmap_flags(&self, iova: u64, size: u64, flags: u32) -> Result<u64> {
        let mut unmap = DmaUnmap {
            argsz: argsz::<DmaUnmap>(),
            flags,
            iova,
            size,
        };
        abi::ioctl_bytes(self, request::IOMMU_UNMAP_DMA, unmap.as_mut_bytes())
            .map_err(Error::during("IOMMU_UNMAP_DMA"))?;
        Ok(unmap.size)
    }

    /// Duplicates the descriptor. Both descriptors refer to the same open file.
    pub fn try_clone(&self) -> Result<Self> {
        self.0
            .try_clone()
            .map(Self)
            .map_err(|error| Error::from_io("dup", &error))
    }
}

/// Returns the address of `len` bytes from `offset` of `memory`.
///
/// # Panics
///
/// If these bytes are not all in `memory`.
#[track_caller]
pub(crate) fn address_in(memory: &Memory, offset: usize, len: usize) -> u64 {
    let end = offset.checked_add(len);
    assert!(
        end.is_some_and(|end| end <= memory.len()),
        "{len:#x} bytes at {offset:#x} are outside of {:#x} bytes",
        memory.len()
    );
    memory.addr().saturating_add(offset as u64)
}

impl AsFd for Container {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
