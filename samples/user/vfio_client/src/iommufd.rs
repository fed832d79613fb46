// SPDX-License-Identifier: GPL-2.0

//! Iommufd: DMA address spaces for devices that are opened by their own files.
//!
//! C header: [`include/uapi/linux/iommufd.h`](srctree/include/uapi/linux/iommufd.h)

use crate::{
    Container, Errno, Error, IovaRange, MapFlags, Memory, Result, abi, request,
    structures::{
        HwptAlloc,
        IoasAlloc,
        IoasIovaRanges,
        IoasMap,
        IoasNoiommuGetPa,
        IoasUnmap,
        IommuDestroy,
        VfioIoas,
        argsz, //
    },
};
use std::{
    fs::File,
    os::fd::{
        AsFd,
        BorrowedFd,
        OwnedFd, //
    },
};
use zerocopy::IntoBytes;

/// Flag of IOMMU_IOAS_MAP: map at the given iova, instead of one that the kernel chooses.
pub const MAP_FIXED_IOVA: u32 = 1;
/// Flag of IOMMU_IOAS_MAP: devices can write the memory.
pub const MAP_WRITEABLE: u32 = 2;
/// Flag of IOMMU_IOAS_MAP: devices can read the memory.
pub const MAP_READABLE: u32 = 4;

/// Operation of IOMMU_VFIO_IOAS: get the id of the compatibility IOAS.
const VFIO_IOAS_GET: u16 = 0;
/// Operation of IOMMU_VFIO_IOAS: choose the compatibility IOAS.
const VFIO_IOAS_SET: u16 = 1;
/// Operation of IOMMU_VFIO_IOAS: have no compatibility IOAS.
const VFIO_IOAS_CLEAR: u16 = 2;

/// The iova ranges of an IOAS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IovaRanges {
    /// The ranges that can be mapped, by their first and last address.
    pub ranges: Vec<IovaRange>,
    /// The alignment of iovas, in bytes.
    pub alignment: u64,
}

/// An open `/dev/iommu`.
///
/// Its objects have numbers: an *IOAS* is a DMA address space, a *HWPT* is a page table of an
/// IOMMU, and each bound device is an object, too.
#[derive(Debug)]
pub struct Iommufd(OwnedFd);

impl Iommufd {
    /// The path of the file.
    pub const PATH: &str = "/dev/iommu";

    /// Opens a new iommufd.
    pub fn open() -> Result<Self> {
        File::options()
            .read(true)
            .write(true)
            .open(Self::PATH)
            .map(|file| Self(file.into()))
            .map_err(|error| Error::from_io(Self::PATH, &error))
    }

    /// Takes ownership of an existing descriptor.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Duplicates the descriptor. Both descriptors refer to the same open file.
    pub fn try_clone(&self) -> Result<Self> {
        self.0
            .try_clone()
            .map(Self)
            .map_err(|error| Error::from_io("dup", &error))
    }

    /// Returns the iommufd as a container, for the requests that both have.
    pub fn as_container(&self) -> Result<Container> {
        Ok(Container::from_fd(self.try_clone()?.0))
    }

    /// Sends a request and reads the structure back.
    fn send(&self, nr: u32, name: &'static str, request: &mut impl Structure) -> Result {
        abi::ioctl_bytes(self, nr, request.as_mut_bytes())
            .map(drop)
            .map_err(Error::during(name))
    }

    /// Creates an IOAS. Returns its id.
    pub fn ioas(&self) -> Result<u32> {
        let mut alloc = IoasAlloc {
            size: argsz::<IoasAlloc>(),
            ..IoasAlloc::default()
        };
        self.send(request::IOMMU_IOAS_ALLOC, "IOMMU_IOAS_ALLOC", &mut alloc)?;
        Ok(alloc.out_ioas_id)
    }

    /// Destroys an object that is not in use.
    pub fn destroy(&self, id: u32) -> Result {
        let mut destroy = IommuDestroy {
            size: argsz::<IommuDestroy>(),
            id,
        };
        self.send(request::IOMMU_DESTROY, "IOMMU_DESTROY", &mut destroy)
    }

    /// Maps all of `memory` at `iova` of an IOAS.
    pub fn map(&self, ioas: u32, iova: u64, memory: &Memory, flags: MapFlags) -> Result {
        self.map_part(ioas, iova, memory, 0, memory.len(), flags)
    }

    /// Maps `len` bytes from `offset` of `memory` at `iova` of an IOAS.
    ///
    /// # Panics
    ///
    /// If these bytes are not all in `memory`.
    #[track_caller]
    pub fn map_part(
        &self,
        ioas: u32,
        iova: u64,
        memory: &Memory,
        offset: usize,
        len: usize,
        flags: MapFlags,
    ) -> Result {
        assert!(offset <= memory.len() && len <= memory.len() - offset);
        let mut map = IoasMap {
            flags: MAP_FIXED_IOVA | access(flags),
            user_va: memory.addr() + offset as u64,
            length: len as u64,
            iova,
            ..map_of(ioas)
        };
        self.send(request::IOMMU_IOAS_MAP, "IOMMU_IOAS_MAP", &mut map)
    }

    /// Maps all of `memory` at an iova of an IOAS that the kernel chooses. Returns the iova.
    pub fn map_anywhere(&self, ioas: u32, memory: &Memory, flags: MapFlags) -> Result<u64> {
        let mut map = IoasMap {
            flags: access(flags),
            user_va: memory.addr(),
            length: memory.len() as u64,
            ..map_of(ioas)
        };
        self.send(request::IOMMU_IOAS_MAP, "IOMMU_IOAS_MAP", &mut map)?;
        Ok(map.iova)
    }

    /// Unmaps a range of an IOAS. Returns the number of bytes unmapped.
    pub fn unmap(&self, ioas: u32, iova: u64, length: u64) -> Result<u64> {
        let mut unmap = IoasUnmap {
            size: argsz::<IoasUnmap>(),
            ioas_id: ioas,
            iova,
            length,
        };
        self.send(request::IOMMU_IOAS_UNMAP, "IOMMU_IOAS_UNMAP", &mut unmap)?;
        Ok(unmap.length)
    }

    /// Unmaps everything of an IOAS. Returns the number of bytes unmapped.
    pub fn unmap_all(&self, ioas: u32) -> Result<u64> {
        self.unmap(ioas, 0, u64::MAX)
    }

    /// Queries the iova ranges of an IOAS, which the attached devices limit.
    pub fn iova_ranges(&self, ioas: u32) -> Result<IovaRanges> {
        const SIZE: usize = size_of::<IovaRange>();
        let mut room = 8;
        loop {
            let memory = Memory::anonymous(room * SIZE)?;
            let mut query = IoasIovaRanges {
                size: argsz::<IoasIovaRanges>(),
                ioas_id: ioas,
                num_iovas: room as u32,
                allowed_iovas: memory.addr(),
                ..IoasIovaRanges::default()
            };
            match self.send(
                request::IOMMU_IOAS_IOVA_RANGES,
                "IOMMU_IOAS_IOVA_RANGES",
                &mut query,
            ) {
                Err(error) if error.errno() == Errno::EMSGSIZE => {
                    room = query.num_iovas as usize;
                    continue;
                }
                other => other?,
            }
            let bound = |at| memory.read_u64(at);
            let range = |i| IovaRange {
                start: bound(i * SIZE),
                end: bound(i * SIZE + 8),
            };
            return Ok(IovaRanges {
                ranges: (0..query.num_iovas as usize).map(range).collect(),
                alignment: query.out_iova_alignment,
            });
        }
    }

    /// Creates a page table of the IOMMU of a bound device, for an IOAS. Returns its id.
    pub fn hwpt(&self, device: u32, ioas: u32) -> Result<u32> {
        let mut alloc = HwptAlloc {
            size: argsz::<HwptAlloc>(),
            dev_id: device,
            pt_id: ioas,
            ..HwptAlloc::default()
        };
        self.send(request::IOMMU_HWPT_ALLOC, "IOMMU_HWPT_ALLOC", &mut alloc)?;
        Ok(alloc.out_hwpt_id)
    }

    /// Returns the IOAS to which the requests of a container apply.
    pub fn compat_ioas(&self) -> Result<u32> {
        self.vfio_ioas(VFIO_IOAS_GET, 0)
    }

    /// Chooses the IOAS to which the requests of a container apply.
    pub fn set_compat_ioas(&self, ioas: u32) -> Result {
        self.vfio_ioas(VFIO_IOAS_SET, ioas).map(drop)
    }

    /// Leaves no IOAS to which the requests of a container apply.
    pub fn clear_compat_ioas(&self) -> Result {
        self.vfio_ioas(VFIO_IOAS_CLEAR, 0).map(drop)
    }

    fn vfio_ioas(&self, op: u16, ioas_id: u32) -> Result<u32> {
        let mut request = VfioIoas {
            size: argsz::<VfioIoas>(),
            ioas_id,
            op,
            ..VfioIoas::default()
        };
        self.send(request::IOMMU_VFIO_IOAS, "IOMMU_VFIO_IOAS", &mut request)?;
        Ok(request.ioas_id)
    }

    /// Returns the physical address of an iova of an IOAS, and the number of bytes from there that
    /// are contiguous, at most `length`. For devices without an IOMMU.
    pub fn physical_address(&self, ioas: u32, iova: u64, length: u64) -> Result<(u64, u64)> {
        let mut query = IoasNoiommuGetPa {
            size: argsz::<IoasNoiommuGetPa>(),
            ioas_id: ioas,
            iova,
            length,
            ..IoasNoiommuGetPa::default()
        };
        self.send(
            request::IOMMU_IOAS_NOIOMMU_GET_PA,
            "IOMMU_IOAS_NOIOMMU_GET_PA",
            &mut query,
        )?;
        Ok((query.out_phys, query.length))
    }
}

/// A structure that can be sent.
trait Structure: zerocopy::FromBytes + IntoBytes {}

impl<T: zerocopy::FromBytes + IntoBytes> Structure for T {}

/// Returns the flags of IOMMU_IOAS_MAP for an access.
fn access(flags: MapFlags) -> u32 {
    match flags {
        MapFlags::Read => MAP_READABLE,
        MapFlags::Write => MAP_WRITEABLE,
        MapFlags::ReadWrite => MAP_READABLE | MAP_WRITEABLE,
    }
}

/// Returns a request to map nothing in an IOAS.
fn map_of(ioas: u32) -> IoasMap {
    IoasMap {
        size: argsz::<IoasMap>(),
        ioas_id: ioas,
        ..IoasMap::default()
    }
}

impl AsFd for Iommufd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
