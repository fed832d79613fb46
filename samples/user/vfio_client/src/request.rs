// SPDX-License-Identifier: GPL-2.0

//! Numbers of the requests; `_IO(';', 100 + n)` in C.

/// Returns the number of a request of VFIO's type.
pub const fn number(n: u32) -> u32 {
    0x3b00 + 100 + n
}

/// On a container: the version of the interface.
pub const GET_API_VERSION: u32 = number(0);
/// On a container: whether an extension is there.
pub const CHECK_EXTENSION: u32 = number(1);
/// On a container: choose the backend.
pub const SET_IOMMU: u32 = number(2);
/// On a group: viable? in a container?
pub const GROUP_GET_STATUS: u32 = number(3);
/// On a group: join a container.
pub const GROUP_SET_CONTAINER: u32 = number(4);
/// On a group: leave the container.
pub const GROUP_UNSET_CONTAINER: u32 = number(5);
/// On a group: open a device.
pub const GROUP_GET_DEVICE_FD: u32 = number(6);
/// On a device: what it is.
pub const DEVICE_GET_INFO: u32 = number(7);
/// On a device: one region.
pub const DEVICE_GET_REGION_INFO: u32 = number(8);
/// On a device: one interrupt index.
pub const DEVICE_GET_IRQ_INFO: u32 = number(9);
/// On a device: set up interrupts.
pub const DEVICE_SET_IRQS: u32 = number(10);
/// On a device: reset it alone.
pub const DEVICE_RESET: u32 = number(11);
/// On a PCI device: who is reset with it.
pub const DEVICE_GET_PCI_HOT_RESET_INFO: u32 = number(12);
/// On a PCI device: reset the slot or bus.
pub const DEVICE_PCI_HOT_RESET: u32 = number(13);
/// On a device: optional features.
pub const DEVICE_FEATURE: u32 = number(17);
/// On a device opened by its own node: bind to an iommufd.
pub const DEVICE_BIND_IOMMUFD: u32 = number(18);
/// On a type 1 container: page sizes, ranges, limits.
pub const IOMMU_GET_INFO: u32 = number(12);
/// On a type 1 container: map memory.
pub const IOMMU_MAP_DMA: u32 = number(13);
/// On a type 1 container: unmap.
pub const IOMMU_UNMAP_DMA: u32 = number(14);
/// On a type 1 container: which pages were written.
pub const IOMMU_DIRTY_PAGES: u32 = number(17);
/// A number that nobody uses.
pub const UNKNOWN: u32 = number(150);
