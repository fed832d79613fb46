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
        GroupKind, //
    },
};

use crate::{
    container::Container,
    msi_file,
    system::System, //
};

/// Returns the ioctl number `VFIO_BASE + nr`.
const fn command(nr: u32) -> u32 {
    kernel::ioctl::_IO(bindings::VFIO_TYPE as u32, bindings::VFIO_BASE + nr)
}

const MAP_DMA: u32 = command(13);
const UNMAP_DMA: u32 = command(14);
const GET_ATTR: u32 = command(15);
const SET_ATTR: u32 = command(16);
const GET_MSI_BANK_COUNT: u32 = command(17);
const MAP_MSI_BANK: u32 = command(18);
const UNMAP_MSI_BANK: u32 = command(19);
const GET_MSI_FD: u32 = command(80);
const GET_WINDOW: u32 = command(81);
const SET_VIOLATION_EVENTFD: u32 = command(82);
const GET_VIOLATION: u32 = command(83);
const REVIVE: u32 = command(84);

/// Returns whether this backend supports `extension`.
fn is_ours(extension: c_ulong) -> bool {
    extension == bindings::VFIO_FSL_PAMU_IOMMU as c_ulong
}

#[vtable]
impl Backend for Container {
    const NAME: &'static CStr = c"vfio-iommu-pamu";

    fn open(kind: c_ulong) -> Result<Arc<Self>> {
        if !is_ours(kind) {
            return Err(EINVAL);
        }
        Self::new()
    }

    fn check_extension(_this: Option<&Self>, extension: c_ulong) -> c_long {
        c_long::from(is_ours(extension) && System::get().is_some())
    }

    fn ioctl(this: ArcBorrow<'_, Self>, cmd: u32, arg: UserPtr) -> Result<c_long> {
        match cmd {
            MAP_DMA => this.ioctl_map(arg),
            UNMAP_DMA => this.ioctl_unmap(arg),
            GET_ATTR => this.ioctl_get_attribute(arg),
            SET_ATTR => this.ioctl_set_attribute(arg),
            GET_MSI_BANK_COUNT => Ok(this.bank_count() as c_long),
            MAP_MSI_BANK => this.ioctl_map_bank(arg),
            UNMAP_MSI_BANK => this.ioctl_unmap_bank(arg),
            GET_MSI_FD => msi_file::open(this.bank_count()),
            GET_WINDOW => this.ioctl_window(arg),
            SET_VIOLATION_EVENTFD => this.ioctl_set_event(arg),
            GET_VIOLATION => this.ioctl_violation(arg),
            REVIVE => this.ioctl_revive(arg),
            _ => Err(ENOTTY),
        }
    }

    fn attach_group(this: ArcBorrow<'_, Self>, group: &Group, kind: GroupKind) -> Result {
        Self::attach(this, group, kind)
    }

    fn detach_group(this: ArcBorrow<'_, Self>, group: &Group) {
        this.detach(group);
    }
}
