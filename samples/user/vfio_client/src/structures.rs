// SPDX-License-Identifier: GPL-2.0

//! The structures of the interface, as bytes.
//!
//! The fields are those of the C structures, of which `vfio_bindings` has the layout. Unlike its
//! structures, these can be converted to bytes and back without unsafe code.

use crate::{
    Memory,
    PAGE_SIZE,
    uapi, //
};
use std::mem::offset_of;
use zerocopy::{
    FromBytes,
    Immutable,
    IntoBytes, //
};

/// Returns the size of a structure, for its field `argsz`.
pub const fn argsz<T>() -> u32 {
    size_of::<T>() as u32
}

/// Returns the size of a structure and of what follows it, for its field `argsz`.
pub(crate) fn argsz_with<T>(following: &[i32]) -> u32 {
    let size = size_of::<T>().saturating_add(size_of_val(following));
    u32::try_from(size).unwrap_or(u32::MAX)
}

/// Defines a structure whose bytes are those of the C structure.
macro_rules! structure {
    ($(#[$meta:meta])* $name:ident { $($field:ident: $kind:ty),* $(,)? }) => {
        $(#[$meta])*
        #[allow(missing_docs, reason = "the fields are those of the C structure")]
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable,
        )]
        #[repr(C)]
        pub struct $name {
            $(pub $field: $kind,)*
        }
    };
}

/// Defines structures, and checks that their layouts are those of the C structures.
macro_rules! structures {
    ($(
        $(#[$meta:meta])*
        $name:ident = $c:ident { $($field:ident: $kind:ty),* $(,)? }
    )*) => { $(
        structure! { $(#[$meta])* $name { $($field: $kind),* } }

        const _: () = {
            assert!(size_of::<$name>() == size_of::<uapi::$c>());
            $(assert!(offset_of!($name, $field) == offset_of!(uapi::$c, $field));)*
        };
    )* };
}

/// Defines structures of iommufd, and checks their sizes. The bindings lack them.
macro_rules! iommufd_structures {
    ($(
        $(#[$meta:meta])*
        $name:ident = $size:literal { $($field:ident: $kind:ty),* $(,)? }
    )*) => { $(
        structure! { $(#[$meta])* $name { $($field: $kind),* } }

        const _: () = assert!(size_of::<$name>() == $size);
    )* };
}

structures! {
    /// The header of a capability.
    CapHeader = vfio_info_cap_header { id: u16, version: u16, next: u32 }

    /// The argument of GROUP_GET_STATUS.
    GroupStatus = vfio_group_status { argsz: u32, flags: u32 }

    /// The argument of DEVICE_GET_INFO.
    DeviceInfo = vfio_device_info {
        argsz: u32,
        flags: u32,
        num_regions: u32,
        num_irqs: u32,
        cap_offset: u32,
        pad: u32,
    }

    /// The argument of DEVICE_GET_REGION_INFO. Capabilities may follow.
    RegionInfo = vfio_region_info {
        argsz: u32,
        flags: u32,
        index: u32,
        cap_offset: u32,
        size: u64,
        offset: u64,
    }

    /// The argument of DEVICE_GET_IRQ_INFO.
    IrqInfo = vfio_irq_info { argsz: u32, flags: u32, index: u32, count: u32 }

    /// The argument of DEVICE_SET_IRQS. Data may follow.
    IrqSet = vfio_irq_set { argsz: u32, flags: u32, index: u32, start: u32, count: u32 }

    /// The argument of DEVICE_PCI_HOT_RESET, and of DEVICE_GET_PCI_HOT_RESET_INFO. The descriptors
    /// of the groups follow, or the affected devices.
    HotReset = vfio_pci_hot_reset { argsz: u32, flags: u32, count: u32 }

    /// The argument of DEVICE_FEATURE. The data of the feature follow.
    Feature = vfio_device_feature { argsz: u32, flags: u32 }

    /// The data of the feature MIG_DEVICE_STATE.
    MigState = vfio_device_feature_mig_state { device_state: u32, data_fd: i32 }

    /// The argument of MIG_GET_PRECOPY_INFO.
    PrecopyInfo = vfio_precopy_info {
        argsz: u32,
        flags: u32,
        initial_bytes: u64,
        dirty_bytes: u64,
    }

    /// The data of the feature DMA_LOGGING_START.
    LoggingControl = vfio_device_feature_dma_logging_control {
        page_size: u64,
        num_ranges: u32,
        __reserved: u32,
        ranges: u64,
    }

    /// A range in user memory to which a [`LoggingControl`] points.
    LoggingRange = vfio_device_feature_dma_logging_range { iova: u64, length: u64 }

    /// The data of the feature DMA_LOGGING_REPORT.
    LoggingReport = vfio_device_feature_dma_logging_report {
        iova: u64,
        length: u64,
        page_size: u64,
        bitmap: u64,
    }

    /// The argument of DEVICE_BIND_IOMMUFD.
    BindIommufd = vfio_device_bind_iommufd {
        argsz: u32,
        flags: u32,
        iommufd: i32,
        out_devid: u32,
        token_uuid_ptr: u64,
    }

    /// The argument of DEVICE_ATTACH_IOMMUFD_PT.
    AttachPt = vfio_device_attach_iommufd_pt { argsz: u32, flags: u32, pt_id: u32, pasid: u32 }

    /// The argument of DEVICE_DETACH_IOMMUFD_PT.
    DetachPt = vfio_device_detach_iommufd_pt { argsz: u32, flags: u32, pasid: u32 }

    /// The argument of IOMMU_GET_INFO. Capabilities may follow.
    Type1Info = vfio_iommu_type1_info {
        argsz: u32,
        flags: u32,
        iova_pgsizes: u64,
        cap_offset: u32,
        pad: u32,
    }

    /// The argument of IOMMU_MAP_DMA.
    DmaMap = vfio_iommu_type1_dma_map {
        argsz: u32,
        flags: u32,
        vaddr: u64,
        iova: u64,
        size: u64,
    }

    /// The argument of IOMMU_UNMAP_DMA. A [`Bitmap`] may follow.
    DmaUnmap = vfio_iommu_type1_dma_unmap { argsz: u32, flags: u32, iova: u64, size: u64 }

    /// The argument of IOMMU_DIRTY_PAGES. A [`DirtyRange`] may follow.
    DirtyPages = vfio_iommu_type1_dirty_bitmap { argsz: u32, flags: u32 }

    /// The range whose dirty pages are wanted.
    DirtyRange = vfio_iommu_type1_dirty_bitmap_get { iova: u64, size: u64, bitmap: Bitmap }

    /// A bitmap in user memory: the size of the page that a bit stands for, the size of the bitmap,
    /// and its address.
    Bitmap = vfio_bitmap { pgsize: u64, size: u64, data: u64 }
}

iommufd_structures! {
    /// The argument of IOMMU_DESTROY.
    IommuDestroy = 8 { size: u32, id: u32 }

    /// The argument of IOMMU_IOAS_ALLOC.
    IoasAlloc = 12 { size: u32, flags: u32, out_ioas_id: u32 }

    /// The argument of IOMMU_IOAS_IOVA_RANGES. The ranges are in user memory.
    IoasIovaRanges = 32 {
        size: u32,
        ioas_id: u32,
        num_iovas: u32,
        __reserved: u32,
        allowed_iovas: u64,
        out_iova_alignment: u64,
    }

    /// The argument of IOMMU_IOAS_MAP.
    IoasMap = 40 {
        size: u32,
        flags: u32,
        ioas_id: u32,
        __reserved: u32,
        user_va: u64,
        length: u64,
        iova: u64,
    }

    /// The argument of IOMMU_IOAS_MAP_FILE.
    IoasMapFile = 40 {
        size: u32,
        flags: u32,
        ioas_id: u32,
        fd: i32,
        start: u64,
        length: u64,
        iova: u64,
    }

    /// The argument of IOMMU_IOAS_UNMAP.
    IoasUnmap = 24 { size: u32, ioas_id: u32, iova: u64, length: u64 }

    /// The argument of IOMMU_VFIO_IOAS.
    VfioIoas = 12 { size: u32, ioas_id: u32, op: u16, __reserved: u16 }

    /// The argument of IOMMU_HWPT_ALLOC.
    HwptAlloc = 48 {
        size: u32,
        flags: u32,
        dev_id: u32,
        pt_id: u32,
        out_hwpt_id: u32,
        __reserved: u32,
        data_type: u32,
        data_len: u32,
        data_uptr: u64,
        fault_id: u32,
        __reserved2: u32,
    }

    /// The argument of IOMMU_IOAS_NOIOMMU_GET_PA.
    IoasNoiommuGetPa = 40 {
        size: u32,
        flags: u32,
        ioas_id: u32,
        __reserved: u32,
        iova: u64,
        length: u64,
        out_phys: u64,
    }
}

impl Bitmap {
    /// Returns a bitmap of one word, for up to 64 pages, at the start of `memory`.
    pub fn word_in(memory: &Memory) -> Self {
        Self {
            pgsize: PAGE_SIZE as u64,
            size: size_of::<u64>() as u64,
            data: memory.addr(),
        }
    }
}
