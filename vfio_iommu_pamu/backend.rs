// SPDX-License-Identifier: GPL-2.0

//! Implements the backend interface for containers.

use kernel::{
    ffi::{
        c_long,
        c_ulong, //
    },
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
    uaccess::UserPtr, //
};

use kernel_ext::{
    bindings,
    iommu::Group,
    iommu_driver::{
        Backend,
        NewGroup, //
    },
    uapi::ioctl, //
};

use crate::{
    container::Container,
    msi,
    system::SystemRef, //
};

/// Returns whether this backend supports `extension`.
fn is_ours(extension: c_ulong) -> bool {
    extension == bindings::VFIO_FSL_PAMU_IOMMU as c_ulong
}

#[vtable]
impl Backend for Container {
    type OwnerModule = crate::LocalModule;
    const NAME: &'static CStr = c"vfio-iommu-pamu";

    fn open(kind: c_ulong) -> Result<Arc<Self>> {
        if !is_ours(kind) {
            return Err(EINVAL);
        }
        Self::new()
    }

    fn check_extension(_this: Option<&Self>, extension: c_ulong) -> c_long {
        c_long::from(is_ours(extension) && SystemRef::get().is_some())
    }

    fn ioctl(this: ArcBorrow<'_, Self>, cmd: u32, arg: UserPtr) -> Result<c_long> {
        match cmd {
            ioctl::VFIO_IOMMU_MAP_DMA => this.ioctl_map(arg),
            ioctl::VFIO_IOMMU_UNMAP_DMA => this.ioctl_unmap(arg),
            ioctl::VFIO_IOMMU_PAMU_GET_ATTR => this.ioctl_get_attribute(arg),
            ioctl::VFIO_IOMMU_PAMU_SET_ATTR => this.ioctl_set_attribute(arg),
            ioctl::VFIO_IOMMU_PAMU_GET_MSI_BANK_COUNT => Ok(this.bank_count() as c_long),
            ioctl::VFIO_IOMMU_PAMU_MAP_MSI_BANK => this.ioctl_map_bank(arg),
            ioctl::VFIO_IOMMU_PAMU_UNMAP_MSI_BANK => this.ioctl_unmap_bank(arg),
            ioctl::VFIO_GROUP_GET_MSI_FD => msi::file::open(this.bank_count()),
            ioctl::VFIO_IOMMU_PAMU_GET_WINDOW => this.ioctl_window(arg),
            ioctl::VFIO_IOMMU_PAMU_SET_VIOLATION_EVENTFD => this.ioctl_set_event(arg),
            ioctl::VFIO_IOMMU_PAMU_GET_VIOLATION => this.ioctl_violation(arg),
            ioctl::VFIO_IOMMU_PAMU_REVIVE => this.ioctl_revive(arg),
            _ => Err(ENOTTY),
        }
    }

    fn attach_group(this: ArcBorrow<'_, Self>, group: NewGroup<'_>) -> Result {
        Self::attach(this, group.group(), group.kind())
    }

    fn detach_group(this: ArcBorrow<'_, Self>, group: &Group) {
        this.detach(group);
    }
}
