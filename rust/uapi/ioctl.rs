// SPDX-License-Identifier: GPL-2.0

//! The ioctl numbers of `<linux/vfio.h>`, `include/uapi/vfio_group.h` and
//! `include/uapi/vfio_pamu.h`, under their C names.

use kernel::ioctl::_IO;

use crate::bindings;

/// Returns the number `_IO(VFIO_TYPE, VFIO_BASE + nr)`.
const fn io(nr: u32) -> u32 {
    _IO(bindings::VFIO_TYPE as u32, bindings::VFIO_BASE + nr)
}

/// Returns the number `_IO(VFIO_TYPE, nr)` of an ioctl that the C modules do not have. `nr` is below
/// `VFIO_BASE`, where `ioctl-number.rst` assigns no numbers of this type.
const fn own(nr: u32) -> u32 {
    _IO(bindings::VFIO_TYPE as u32, nr)
}

// --- Containers -------------------------------------------------------------------------------

/// Returns the version of the interface.
pub const VFIO_GET_API_VERSION: u32 = io(0);
/// Returns whether an extension is supported. The only ioctl that a backend gets without an
/// instance.
pub const VFIO_CHECK_EXTENSION: u32 = io(1);
/// Chooses the backend of a container.
pub const VFIO_SET_IOMMU: u32 = io(2);

// --- Groups -----------------------------------------------------------------------------------

/// Takes `struct vfio_group_status`.
pub const VFIO_GROUP_GET_STATUS: u32 = io(3);
/// Takes the file descriptor of a container.
pub const VFIO_GROUP_SET_CONTAINER: u32 = io(4);
/// Removes the group from its container.
pub const VFIO_GROUP_UNSET_CONTAINER: u32 = io(5);
/// Takes the name of a device.
pub const VFIO_GROUP_GET_DEVICE_FD: u32 = io(6);
/// Takes `struct vfio_group_devices`.
pub const VFIO_GROUP_GET_DEVICES: u32 = own(0x40);
/// Takes the file descriptor of a group.
pub const VFIO_GROUP_MERGE: u32 = own(0x41);
/// Removes the group from the container that it shares with others.
pub const VFIO_GROUP_UNMERGE: u32 = own(0x42);
/// Returns a file descriptor of the group's container.
pub const VFIO_GROUP_GET_IOMMU_FD: u32 = own(0x43);
/// Returns a file descriptor whose pages are the MSI banks of the PAMU.
pub const VFIO_GROUP_GET_MSI_FD: u32 = own(0x50);

// --- Devices ----------------------------------------------------------------------------------

/// Takes `struct vfio_device_info`.
pub const VFIO_DEVICE_GET_INFO: u32 = io(7);
/// Takes `struct vfio_region_info`.
pub const VFIO_DEVICE_GET_REGION_INFO: u32 = io(8);
/// Takes `struct vfio_irq_info`.
pub const VFIO_DEVICE_GET_IRQ_INFO: u32 = io(9);
/// Takes `struct vfio_irq_set`.
pub const VFIO_DEVICE_SET_IRQS: u32 = io(10);
/// Resets the device.
pub const VFIO_DEVICE_RESET: u32 = io(11);
/// Takes `struct vfio_device_feature`.
pub const VFIO_DEVICE_FEATURE: u32 = io(17);
/// Takes `struct vfio_device_bind_iommufd`.
pub const VFIO_DEVICE_BIND_IOMMUFD: u32 = io(18);
/// Takes `struct vfio_device_attach_iommufd_pt`.
pub const VFIO_DEVICE_ATTACH_IOMMUFD_PT: u32 = io(19);
/// Takes `struct vfio_device_detach_iommufd_pt`.
pub const VFIO_DEVICE_DETACH_IOMMUFD_PT: u32 = io(20);
/// Takes `struct vfio_precopy_info`, on the file of a migration.
pub const VFIO_MIG_GET_PRECOPY_INFO: u32 = io(21);

// --- Type 1 -----------------------------------------------------------------------------------

/// Takes `struct vfio_iommu_type1_info`.
pub const VFIO_IOMMU_GET_INFO: u32 = io(12);
/// Takes `struct vfio_iommu_type1_dma_map`.
pub const VFIO_IOMMU_MAP_DMA: u32 = io(13);
/// Takes `struct vfio_iommu_type1_dma_unmap`.
pub const VFIO_IOMMU_UNMAP_DMA: u32 = io(14);
/// Takes `struct vfio_iommu_type1_dirty_bitmap`.
pub const VFIO_IOMMU_DIRTY_PAGES: u32 = io(17);

// --- PAMU -------------------------------------------------------------------------------------

/// Takes `struct vfio_pamu_attr`.
pub const VFIO_IOMMU_PAMU_GET_ATTR: u32 = io(15);
/// Takes `struct vfio_pamu_attr`.
pub const VFIO_IOMMU_PAMU_SET_ATTR: u32 = io(16);
/// Returns the number of MSI banks.
pub const VFIO_IOMMU_PAMU_GET_MSI_BANK_COUNT: u32 = io(17);
/// Takes `struct vfio_pamu_msi_bank_map`.
pub const VFIO_IOMMU_PAMU_MAP_MSI_BANK: u32 = io(18);
/// Takes `struct vfio_pamu_msi_bank_unmap`.
pub const VFIO_IOMMU_PAMU_UNMAP_MSI_BANK: u32 = io(19);
/// Takes `struct vfio_pamu_window`.
pub const VFIO_IOMMU_PAMU_GET_WINDOW: u32 = own(0x51);
/// Takes an eventfd, or -1.
pub const VFIO_IOMMU_PAMU_SET_VIOLATION_EVENTFD: u32 = own(0x52);
/// Takes `struct vfio_pamu_violation`.
pub const VFIO_IOMMU_PAMU_GET_VIOLATION: u32 = own(0x53);
/// Takes the number of a LIODN.
pub const VFIO_IOMMU_PAMU_REVIVE: u32 = own(0x54);
