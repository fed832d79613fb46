// SPDX-License-Identifier: GPL-2.0

//! Request numbers; `_IO(';', 100 + n)` in C.

/// The type of the requests, `';'`, in its place in a number, and that they have no size. On some
/// machines the latter has a bit of its own.
// CAST: A request number has 32 bits.
const TYPE: u32 = nix::request_code_none!(b';', 0) as u32;

/// Returns request number `n` of the VFIO type.
pub const fn number(n: u32) -> u32 {
    (TYPE | 100).wrapping_add(n)
}

/// Returns request number `n` of those which the C modules do not have, `_IO(';', n)` in C.
pub(crate) const fn own(n: u32) -> u32 {
    TYPE.wrapping_add(n)
}

/// Container: get the version of the interface.
pub const GET_API_VERSION: u32 = number(0);
/// Container: query an extension.
pub const CHECK_EXTENSION: u32 = number(1);
/// Container: set the IOMMU backend.
pub const SET_IOMMU: u32 = number(2);
/// Group: get its status (viable, in a container).
pub const GROUP_GET_STATUS: u32 = number(3);
/// Group: join a container.
pub const GROUP_SET_CONTAINER: u32 = number(4);
/// Group: leave the container.
pub const GROUP_UNSET_CONTAINER: u32 = number(5);
/// Group: open a device.
pub const GROUP_GET_DEVICE_FD: u32 = number(6);
/// Group: list its devices. See `include/uapi/vfio_group.h` for this one and the next three.
pub const GROUP_GET_DEVICES: u32 = own(0x40);
/// Group: add another group to the address space.
pub const GROUP_MERGE: u32 = own(0x41);
/// Group: leave the shared address space.
pub const GROUP_UNMERGE: u32 = own(0x42);
/// Group: get a file of its container.
pub const GROUP_GET_IOMMU_FD: u32 = own(0x43);
/// Device: get device information.
pub const DEVICE_GET_INFO: u32 = number(7);
/// Device: get information about a region.
pub const DEVICE_GET_REGION_INFO: u32 = number(8);
/// Device: get information about an interrupt index.
pub const DEVICE_GET_IRQ_INFO: u32 = number(9);
/// Device: set up interrupts.
pub const DEVICE_SET_IRQS: u32 = number(10);
/// Device: reset it alone.
pub const DEVICE_RESET: u32 = number(11);
/// PCI device: get the devices that are reset together.
pub const DEVICE_GET_PCI_HOT_RESET_INFO: u32 = number(12);
/// PCI device: reset the slot or bus.
pub const DEVICE_PCI_HOT_RESET: u32 = number(13);
/// Device: get, set or probe an optional feature.
pub const DEVICE_FEATURE: u32 = number(17);
/// Device opened by its own node: bind to an iommufd.
pub const DEVICE_BIND_IOMMUFD: u32 = number(18);
/// Device opened by its own node: attach it to an IOAS or a hardware page table.
pub const DEVICE_ATTACH_IOMMUFD_PT: u32 = number(19);
/// Device opened by its own node: detach it from its IOAS or hardware page table.
pub const DEVICE_DETACH_IOMMUFD_PT: u32 = number(20);
/// Type 1 container: get page sizes, ranges and limits.
pub const IOMMU_GET_INFO: u32 = number(12);
/// Type 1 container: map memory.
pub const IOMMU_MAP_DMA: u32 = number(13);
/// Type 1 container: unmap memory.
pub const IOMMU_UNMAP_DMA: u32 = number(14);
/// Type 1 container: track dirty pages.
pub const IOMMU_DIRTY_PAGES: u32 = number(17);

/// Returns request number `n` of iommufd, `_IO(';', 0x80 + n)` in C.
const fn iommufd(n: u32) -> u32 {
    (TYPE | 0x80).wrapping_add(n)
}

/// Iommufd: destroy an object.
pub const IOMMU_DESTROY: u32 = iommufd(0);
/// Iommufd: create an IOAS.
pub const IOMMU_IOAS_ALLOC: u32 = iommufd(1);
/// Iommufd: get the ranges of an IOAS that can be mapped.
pub const IOMMU_IOAS_IOVA_RANGES: u32 = iommufd(4);
/// Iommufd: map memory.
pub const IOMMU_IOAS_MAP: u32 = iommufd(5);
/// Iommufd: unmap memory.
pub const IOMMU_IOAS_UNMAP: u32 = iommufd(6);
/// Iommufd: get, set or clear the IOAS for the requests of a container.
pub const IOMMU_VFIO_IOAS: u32 = iommufd(8);
/// Iommufd: create a hardware page table.
pub const IOMMU_HWPT_ALLOC: u32 = iommufd(9);
/// Iommufd: map a part of a file.
pub const IOMMU_IOAS_MAP_FILE: u32 = iommufd(0xf);
/// Iommufd: get the physical address of an iova, for devices without an IOMMU.
pub const IOMMU_IOAS_NOIOMMU_GET_PA: u32 = iommufd(0x15);

/// A request number that is not in use.
pub const UNKNOWN: u32 = number(150);
