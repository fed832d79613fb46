// SPDX-License-Identifier: GPL-2.0

//! Iommufd: DMA address spaces for devices that are opened by their own files.
//!
//! C header: `<linux/iommufd.h>`

use crate::{
    Container, Errno, Error, Ioas, IovaRange, MapFlags, Memory, Result, abi,
    container::address_in,
    request,
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
use zerocopy::{
    FromBytes,
    IntoBytes, //
};

/// Flag of IOMMU_IOAS_MAP: map at the given iova, instead of one that the kernel chooses.
pub const MAP_FIXED_IOVA: u32 = 1;
/// Flag of IOMMU_IOAS_MAP: devices can write the memory.
pub const MAP_WRITEABLE: u32 = 2;
/// Flag of IOMMU_IOAS_MAP: devices can read the memory.
pub const MAP_READABLE: u32 = 4;

/// The maximum number of ranges that a kernel can ask room for.
const MOST_RANGES: u32 = 1 << 16;

/// Flag of IOMMU_HWPT_ALLOC: PASIDs can be attached to the page table.
const HWPT_ALLOC_PASID: u32 = 1 << 3;

/// Operation of IOMMU_VFIO_IOAS: get the id of the compatibility IOAS.
const VFIO_IOAS_GET: u16 = 0;
/// Operation of IOMMU_VFIO_IOAS: choose the compatibility IOAS.
const VFIO_IOAS_SET: u16 = 1;
/// Operation of IOMMU_VFIO_IOAS: have no compatibility IOAS.
const VFIO_IOAS_CLEAR: u16 = 2;

/// The iova ranges of an IOAS.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
///
/// # Examples
///
/// ```no_run
/// use vfio_client::{Device, Iommufd, MapFlags, Memory, pci};
///
/// # fn main() -> vfio_client::Result {
/// let iommufd = Iommufd::open()?;
/// let device = Device::open_file(&pci::sysfs("0000:01:00.0"))?;
/// device.bind(&iommufd)?;
/// let ioas = iommufd.ioas()?;
/// device.attach(ioas)?;
/// let memory = Memory::anonymous(1 << 20)?;
/// let iova = iommufd.map_anywhere(ioas, &memory, MapFlags::ReadWrite)?;
/// // The device can access the memory now, at `iova`.
/// iommufd.unmap(ioas, iova, 1 << 20)?;
/// # Ok(())
/// # }
/// ```
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

    /// Returns an IOAS as an address space, for example for a [`DmaBuffer`](crate::DmaBuffer).
    pub fn address_space(&self, ioas: u32) -> Ioas<'_> {
        Ioas::new(self, ioas)
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
        let mut map = IoasMap {
            flags: MAP_FIXED_IOVA | access(flags),
            user_va: address_in(memory, offset, len),
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
        const CALL: &str = "IOMMU_IOAS_IOVA_RANGES";
        const SIZE: usize = size_of::<IovaRange>();
        let mut room = 8;
        // The number of ranges may grow in between, when a device is attached.
        for _ in 0..8 {
            let len = (room as usize).saturating_mul(SIZE);
            let memory = Memory::anonymous(len)?;
            let mut query = IoasIovaRanges {
                size: argsz::<IoasIovaRanges>(),
                ioas_id: ioas,
                num_iovas: room,
                allowed_iovas: memory.addr(),
                ..IoasIovaRanges::default()
            };
            match self.send(request::IOMMU_IOAS_IOVA_RANGES, CALL, &mut query) {
                Err(error) if error.errno() == Errno::EMSGSIZE => {
                    room = query.num_iovas;
                    if room > MOST_RANGES {
                        break;
                    }
                    continue;
                }
                other => other?,
            }
            if query.num_iovas > room {
                break;
            }
            let bytes = memory.to_vec(0, len);
            let ranges = bytes.chunks_exact(SIZE);
            return Ok(IovaRanges {
                ranges: ranges
                    .filter_map(|range| IovaRange::read_from_bytes(range).ok())
                    .take(query.num_iovas as usize)
                    .collect(),
                alignment: query.out_iova_alignment,
            });
        }
        Err(Error::malformed(CALL))
    }

    /// Creates a page table of the IOMMU of a bound device, for an IOAS. Returns its id.
    pub fn hwpt(&self, device: u32, ioas: u32) -> Result<u32> {
        self.hwpt_with(0, device, ioas)
    }

    /// Creates a page table to which PASIDs of a bound device can be attached, for an IOAS. Returns
    /// its id. While a PASID is attached, the device itself can only be attached to such a page
    /// table.
    pub fn hwpt_for_pasids(&self, device: u32, ioas: u32) -> Result<u32> {
        self.hwpt_with(HWPT_ALLOC_PASID, device, ioas)
    }

    fn hwpt_with(&self, flags: u32, device: u32, ioas: u32) -> Result<u32> {
        let mut alloc = HwptAlloc {
            size: argsz::<HwptAlloc>(),
            flags,
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
trait Structure: FromBytes + IntoBytes {}

impl<T: FromBytes + IntoBytes> Structure for T {}

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
