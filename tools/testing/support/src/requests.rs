// SPDX-License-Identifier: GPL-2.0

//! The structures of the ioctls, with fields that may be invalid.
//!
//! A default value is valid as far as that is possible without knowing memory and devices, so a
//! caller names only the fields that matter:
//!
//! ```no_run
//! use support::requests::MapDma;
//! use vfio_client::{Container, Errno};
//!
//! # fn example(container: &Container) {
//! let answer = MapDma { argsz: 31, ..MapDma::default() }.send(container);
//! assert_eq!(answer, Err(Errno::EINVAL));
//! # }
//! ```

use std::os::fd::AsFd;
use vfio_client::{
    Bytes, Errno, PAGE_SIZE, raw, request,
    structures::{
        self,
        AttachPt as RawAttach,
        BindIommufd as RawBind,
        DetachPt as RawDetach,
        DmaMap,
        DmaUnmap,
        IrqSet,
        argsz, //
    },
    uapi::{
        VFIO_DEVICE_ATTACH_PASID,
        VFIO_DEVICE_BIND_FLAG_TOKEN,
        VFIO_DEVICE_DETACH_PASID,
        VFIO_DMA_MAP_FLAG_READ,
        VFIO_DMA_MAP_FLAG_VADDR,
        VFIO_DMA_MAP_FLAG_WRITE,
        VFIO_DMA_UNMAP_FLAG_ALL,
        VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
        VFIO_DMA_UNMAP_FLAG_VADDR,
        VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
        VFIO_IOMMU_DIRTY_PAGES_FLAG_START,
        VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
        VFIO_IRQ_SET_ACTION_MASK,
        VFIO_IRQ_SET_ACTION_TRIGGER,
        VFIO_IRQ_SET_ACTION_UNMASK,
        VFIO_IRQ_SET_DATA_BOOL,
        VFIO_IRQ_SET_DATA_EVENTFD,
        VFIO_IRQ_SET_DATA_NONE, //
    },
};

pub use vfio_client::structures::{
    Bitmap,
    DirtyRange, //
};

/// Sends a structure that the kernel must not change.
fn send_read_only(fd: impl AsFd, nr: u32, bytes: Bytes) -> Result<i32, Errno> {
    let mut sent = bytes.clone();
    let answer = raw::bytes(fd, nr, &mut sent);
    assert_eq!(
        sent, bytes,
        "the kernel changed a structure that it only reads"
    );
    answer
}

/// The argument of `VFIO_IOMMU_MAP_DMA`: `struct vfio_iommu_type1_dma_map`.
///
/// By default, devices may read and write the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapDma {
    /// The size of the structure, in bytes.
    pub argsz: u32,
    /// [`READ`](Self::READ), [`WRITE`](Self::WRITE), [`VADDR`](Self::VADDR).
    pub flags: u32,
    /// The address of the memory.
    pub vaddr: u64,
    /// The first IOVA.
    pub iova: u64,
    /// The size of the range, in bytes.
    pub size: u64,
}

impl MapDma {
    /// The size of the structure, in bytes.
    pub const SIZE: u32 = argsz::<DmaMap>();
    /// Devices may read the memory.
    pub const READ: u32 = VFIO_DMA_MAP_FLAG_READ;
    /// Devices may write the memory.
    pub const WRITE: u32 = VFIO_DMA_MAP_FLAG_WRITE;
    /// Devices may read and write the memory.
    pub const READ_WRITE: u32 = Self::READ | Self::WRITE;
    /// Update the vaddr of a mapping.
    pub const VADDR: u32 = VFIO_DMA_MAP_FLAG_VADDR;

    /// Returns the bytes of the structure.
    pub fn bytes(&self) -> Bytes {
        Bytes::of(&DmaMap {
            argsz: self.argsz,
            flags: self.flags,
            vaddr: self.vaddr,
            iova: self.iova,
            size: self.size,
        })
    }

    /// Sends the request, and checks that the kernel does not change the structure.
    pub fn send(&self, container: impl AsFd) -> Result<i32, Errno> {
        send_read_only(container, request::IOMMU_MAP_DMA, self.bytes())
    }
}

impl Default for MapDma {
    fn default() -> Self {
        Self {
            argsz: Self::SIZE,
            flags: Self::READ_WRITE,
            vaddr: 0,
            iova: 0,
            size: PAGE_SIZE as u64,
        }
    }
}

/// The argument of `VFIO_IOMMU_UNMAP_DMA`: `struct vfio_iommu_type1_dma_unmap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnmapDma {
    /// The size of the structure, in bytes.
    pub argsz: u32,
    /// [`GET_DIRTY_BITMAP`](Self::GET_DIRTY_BITMAP), [`ALL`](Self::ALL), [`VADDR`](Self::VADDR).
    pub flags: u32,
    /// The first IOVA.
    pub iova: u64,
    /// The size of the range, in bytes.
    pub size: u64,
    /// The bitmap after the structure.
    pub bitmap: Option<Bitmap>,
}

impl UnmapDma {
    /// The size of the structure without a bitmap, in bytes.
    pub const SIZE: u32 = argsz::<DmaUnmap>();
    /// The size of the structure with a bitmap, in bytes.
    pub const SIZE_WITH_BITMAP: u32 = Self::SIZE + argsz::<Bitmap>();
    /// Return the dirty pages of the range.
    pub const GET_DIRTY_BITMAP: u32 = VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP;
    /// Unmap everything.
    pub const ALL: u32 = VFIO_DMA_UNMAP_FLAG_ALL;
    /// Invalidate vaddrs and keep the mappings.
    pub const VADDR: u32 = VFIO_DMA_UNMAP_FLAG_VADDR;

    /// Returns a request to unmap a range.
    pub fn of(iova: u64, size: u64) -> Self {
        Self {
            argsz: Self::SIZE,
            flags: 0,
            iova,
            size,
            bitmap: None,
        }
    }

    /// Returns a request for the dirty pages of a range that is unmapped.
    pub fn with_bitmap(iova: u64, size: u64, bitmap: Bitmap) -> Self {
        Self {
            argsz: Self::SIZE_WITH_BITMAP,
            flags: Self::GET_DIRTY_BITMAP,
            bitmap: Some(bitmap),
            ..Self::of(iova, size)
        }
    }

    /// Returns a request to unmap everything.
    pub fn all() -> Self {
        Self {
            flags: Self::ALL,
            ..Self::of(0, 0)
        }
    }

    /// Returns the bytes of the structure.
    pub fn bytes(&self) -> Bytes {
        let bytes = Bytes::of(&DmaUnmap {
            argsz: self.argsz,
            flags: self.flags,
            iova: self.iova,
            size: self.size,
        });
        match &self.bitmap {
            Some(bitmap) => bytes.append(bitmap),
            None => bytes,
        }
    }

    /// Sends the request. Returns the size that was unmapped, in bytes.
    ///
    /// Checks that the kernel changes only the size, and nothing if it fails.
    pub fn send(&self, container: impl AsFd) -> Result<u64, Errno> {
        let mut sent = self.bytes();
        match raw::bytes(container, request::IOMMU_UNMAP_DMA, &mut sent) {
            Ok(value) => {
                assert_eq!(value, 0, "UNMAP_DMA returns 0");
                let size = Self::unmapped(&sent);
                let expected = Self { size, ..*self }.bytes();
                assert_eq!(sent, expected, "UNMAP_DMA changes only the size");
                Ok(size)
            }
            Err(errno) => {
                let expected = self.bytes();
                assert_eq!(sent, expected, "UNMAP_DMA changes nothing if it fails");
                Err(errno)
            }
        }
    }

    /// Returns the size that a request has unmapped, from the structure that it wrote.
    pub fn unmapped(answer: &Bytes) -> u64 {
        answer.get::<DmaUnmap>(0).size
    }
}

/// The argument of `VFIO_IOMMU_DIRTY_PAGES`: `struct vfio_iommu_type1_dirty_bitmap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirtyPages {
    /// The size of the structure, in bytes.
    pub argsz: u32,
    /// [`START`](Self::START), [`STOP`](Self::STOP) or [`GET_BITMAP`](Self::GET_BITMAP).
    pub flags: u32,
    /// The range after the structure.
    pub range: Option<DirtyRange>,
}

impl DirtyPages {
    /// The size of the structure without a range, in bytes.
    pub const SIZE: u32 = argsz::<structures::DirtyPages>();
    /// The size of the structure with a range, in bytes.
    pub const SIZE_WITH_RANGE: u32 = Self::SIZE + argsz::<DirtyRange>();
    /// Start tracking.
    pub const START: u32 = VFIO_IOMMU_DIRTY_PAGES_FLAG_START;
    /// Stop tracking.
    pub const STOP: u32 = VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP;
    /// Get the dirty pages of a range.
    pub const GET_BITMAP: u32 = VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP;

    /// Returns a request that starts or stops tracking.
    pub fn track(flags: u32) -> Self {
        Self {
            argsz: Self::SIZE,
            flags,
            range: None,
        }
    }

    /// Returns a request for the dirty pages of a range.
    pub fn get(iova: u64, size: u64, bitmap: Bitmap) -> Self {
        Self {
            argsz: Self::SIZE_WITH_RANGE,
            flags: Self::GET_BITMAP,
            range: Some(DirtyRange { iova, size, bitmap }),
        }
    }

    /// Returns the bytes of the structure.
    pub fn bytes(&self) -> Bytes {
        let bytes = Bytes::of(&structures::DirtyPages {
            argsz: self.argsz,
            flags: self.flags,
        });
        match &self.range {
            Some(range) => bytes.append(range),
            None => bytes,
        }
    }

    /// Sends the request, and checks that the kernel does not change the structure.
    pub fn send(&self, container: impl AsFd) -> Result<i32, Errno> {
        send_read_only(container, request::IOMMU_DIRTY_PAGES, self.bytes())
    }
}

/// The argument of `VFIO_DEVICE_SET_IRQS`: `struct vfio_irq_set`.
///
/// By default, it triggers the first interrupt of index 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetIrqs<'a> {
    /// A type of data and an action.
    pub flags: u32,
    /// The interrupt index.
    pub index: u32,
    /// The first interrupt.
    pub start: u32,
    /// The number of interrupts.
    pub count: u32,
    /// The data after the structure.
    pub data: &'a [u8],
}

impl SetIrqs<'_> {
    /// The size of the structure without its data, in bytes.
    pub const SIZE: u32 = argsz::<IrqSet>();
    /// No data.
    pub const NONE: u32 = VFIO_IRQ_SET_DATA_NONE;
    /// A byte for each interrupt.
    pub const BOOL: u32 = VFIO_IRQ_SET_DATA_BOOL;
    /// The descriptor of an eventfd for each interrupt.
    pub const EVENTFD: u32 = VFIO_IRQ_SET_DATA_EVENTFD;
    /// Mask interrupts.
    pub const MASK: u32 = VFIO_IRQ_SET_ACTION_MASK;
    /// Unmask interrupts.
    pub const UNMASK: u32 = VFIO_IRQ_SET_ACTION_UNMASK;
    /// Trigger interrupts, or set the eventfds that they trigger.
    pub const TRIGGER: u32 = VFIO_IRQ_SET_ACTION_TRIGGER;

    /// Returns the bytes of the structure.
    pub fn bytes(&self) -> Bytes {
        let set = IrqSet {
            argsz: Self::SIZE + self.data.len() as u32,
            flags: self.flags,
            index: self.index,
            start: self.start,
            count: self.count,
        };
        Bytes::of(&set).raw(self.data)
    }

    /// Sends the request, and checks that the kernel does not change the structure.
    pub fn send(&self, device: impl AsFd) -> Result<i32, Errno> {
        send_read_only(device, request::DEVICE_SET_IRQS, self.bytes())
    }
}

impl Default for SetIrqs<'_> {
    fn default() -> Self {
        Self {
            flags: Self::NONE | Self::TRIGGER,
            index: 0,
            start: 0,
            count: 1,
            data: &[],
        }
    }
}

/// The argument of `VFIO_DEVICE_BIND_IOMMUFD`: `struct vfio_device_bind_iommufd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindIommufd {
    /// The size of the structure, in bytes.
    pub argsz: u32,
    /// [`TOKEN`](Self::TOKEN).
    pub flags: u32,
    /// The descriptor of the iommufd.
    pub iommufd: i32,
    /// The address of the token.
    pub token: u64,
}

impl BindIommufd {
    /// The size of the structure, in bytes.
    pub const SIZE: u32 = argsz::<RawBind>();
    /// The size of the structure without the address of the token, in bytes.
    pub const SIZE_WITHOUT_TOKEN: u32 = 16;
    /// The structure has the address of a token.
    pub const TOKEN: u32 = VFIO_DEVICE_BIND_FLAG_TOKEN;

    /// The value of the field for the id before the request.
    const NO_ID: u32 = 0xdead_beef;

    /// Returns the bytes of the structure.
    pub fn bytes(&self) -> Bytes {
        Bytes::of(&RawBind {
            argsz: self.argsz,
            flags: self.flags,
            iommufd: self.iommufd,
            out_devid: Self::NO_ID,
            token_uuid_ptr: self.token,
        })
    }

    /// Sends the request. Returns the id of the device.
    ///
    /// Checks that the kernel changes only the id, and nothing if it fails.
    pub fn send(&self, device: impl AsFd) -> Result<u32, Errno> {
        self.send_before(device, &[])
    }

    /// Sends the request with bytes after the structure.
    pub fn send_before(&self, device: impl AsFd, tail: &[u8]) -> Result<u32, Errno> {
        let mut sent = self.bytes().raw(tail);
        let answer = raw::bytes(device, request::DEVICE_BIND_IOMMUFD, &mut sent);
        let id = sent.get::<RawBind>(0).out_devid;
        let expected = RawBind {
            out_devid: if answer.is_ok() { id } else { Self::NO_ID },
            ..self.bytes().get(0)
        };
        assert_eq!(
            sent,
            Bytes::of(&expected).raw(tail),
            "BIND_IOMMUFD changes only the id"
        );
        answer.map(|value| {
            assert_eq!(value, 0, "BIND_IOMMUFD returns 0");
            id
        })
    }
}

impl Default for BindIommufd {
    fn default() -> Self {
        Self {
            argsz: Self::SIZE,
            flags: 0,
            iommufd: -1,
            token: 0,
        }
    }
}

/// The argument of `VFIO_DEVICE_ATTACH_IOMMUFD_PT`: `struct vfio_device_attach_iommufd_pt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachPt {
    /// The size of the structure, in bytes.
    pub argsz: u32,
    /// [`PASID`](Self::PASID).
    pub flags: u32,
    /// The id of an IOAS or a page table.
    pub pt_id: u32,
    /// The PASID.
    pub pasid: u32,
}

impl AttachPt {
    /// The size of the structure, in bytes.
    pub const SIZE: u32 = argsz::<RawAttach>();
    /// The size of the structure without the PASID, in bytes.
    pub const SIZE_WITHOUT_PASID: u32 = 12;
    /// Attach a PASID.
    pub const PASID: u32 = VFIO_DEVICE_ATTACH_PASID;

    /// Returns a request to attach the device to an IOAS or a page table.
    pub fn to(pt_id: u32) -> Self {
        Self {
            argsz: Self::SIZE,
            flags: 0,
            pt_id,
            pasid: 0,
        }
    }

    /// Returns the bytes of the structure.
    pub fn bytes(&self) -> Bytes {
        Bytes::of(&RawAttach {
            argsz: self.argsz,
            flags: self.flags,
            pt_id: self.pt_id,
            pasid: self.pasid,
        })
    }

    /// Sends the request. Returns the id of the page table.
    ///
    /// Checks that the kernel changes only the id, and nothing if it fails.
    pub fn send(&self, device: impl AsFd) -> Result<u32, Errno> {
        let mut sent = self.bytes();
        let answer = raw::bytes(device, request::DEVICE_ATTACH_IOMMUFD_PT, &mut sent);
        let pt_id = match answer {
            Ok(value) => {
                assert_eq!(value, 0, "ATTACH_IOMMUFD_PT returns 0");
                sent.get::<RawAttach>(0).pt_id
            }
            Err(_) => self.pt_id,
        };
        let expected = Self { pt_id, ..*self }.bytes();
        assert_eq!(sent, expected, "ATTACH_IOMMUFD_PT changes only the id");
        answer.map(|_| pt_id)
    }
}

/// The argument of `VFIO_DEVICE_DETACH_IOMMUFD_PT`: `struct vfio_device_detach_iommufd_pt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DetachPt {
    /// The size of the structure, in bytes.
    pub argsz: u32,
    /// [`PASID`](Self::PASID).
    pub flags: u32,
    /// The PASID.
    pub pasid: u32,
}

impl DetachPt {
    /// The size of the structure, in bytes.
    pub const SIZE: u32 = argsz::<RawDetach>();
    /// The size of the structure without the PASID, in bytes.
    pub const SIZE_WITHOUT_PASID: u32 = 8;
    /// Detach a PASID.
    pub const PASID: u32 = VFIO_DEVICE_DETACH_PASID;

    /// Returns the bytes of the structure.
    pub fn bytes(&self) -> Bytes {
        Bytes::of(&RawDetach {
            argsz: self.argsz,
            flags: self.flags,
            pasid: self.pasid,
        })
    }

    /// Sends the request, and checks that the kernel does not change the structure.
    pub fn send(&self, device: impl AsFd) -> Result<i32, Errno> {
        send_read_only(device, request::DEVICE_DETACH_IOMMUFD_PT, self.bytes())
    }
}

impl Default for DetachPt {
    fn default() -> Self {
        Self {
            argsz: Self::SIZE,
            flags: 0,
            pasid: 0,
        }
    }
}
