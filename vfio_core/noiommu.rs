// SPDX-License-Identifier: GPL-2.0

//! No-IOMMU mode: devices without an IOMMU, whose DMA is not translated.
//!
//! The groups of these devices are software groups. Their containers use only the backend in this
//! file, which does no translation. Registering such a device taints the kernel.

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
    iommu::Group as IommuGroup,
    iommu_driver::{
        Backend,
        GroupType,
        NewGroup,
        Registration,
        Table, //
    },
    module::taint_user,
    module_param,
    task::Capability, //
};

use crate::{
    device::registration::{
        Joined,
        Unregistered, //
    },
    group::{
        registry,
        Group, //
    },
    iommu_driver::IommuDriverRef, //
};

module_param! {
    /// Whether devices without an IOMMU may be used.
    static ENABLED: bool = false;
    name: "enable_unsafe_noiommu_mode",
    kind: "bool",
    description: "Enable UNSAFE, no-IOMMU mode.  This mode provides no device isolation, no DMA translation, no host kernel protection, cannot be used for device assignment to virtual machines, requires RAWIO permissions, and will taint the kernel.  If you do not know what this is for, step away. (default: false)"
}

/// The container extension for no-IOMMU mode.
const EXTENSION: c_ulong = bindings::VFIO_NOIOMMU_IOMMU as c_ulong;

static TABLE: Table<NoIommu> = Table::new();

/// The backend that does no translation.
pub(crate) struct NoIommu;

/// Registers the backend until the result is dropped.
pub(crate) fn register() -> Result<Registration<NoIommu>> {
    Registration::new(&TABLE)
}

/// Returns whether `driver` is the no-IOMMU backend.
pub(crate) fn is_backend(driver: &IommuDriverRef) -> bool {
    driver.is(TABLE.ops())
}

/// Returns whether the administrator has enabled no-IOMMU mode.
pub(crate) fn enabled() -> bool {
    ENABLED.get()
}

/// Creates a group for a device without an IOMMU, and taints the kernel.
pub(crate) fn join(device: Unregistered<'_>) -> Result<(Joined<'_>, Arc<Group>)> {
    let (device, group) = registry::join_software(device, GroupType::NoIommu)?;
    taint_user();
    dev_warn!(
        device.parent(),
        "Adding kernel taint for vfio-noiommu group on device\n"
    );
    Ok((device, group))
}

#[vtable]
impl Backend for NoIommu {
    type OwnerModule = crate::LocalModule;
    const NAME: &'static CStr = c"vfio-noiommu";

    fn open(kind: c_ulong) -> Result<Arc<Self>> {
        if kind != EXTENSION {
            return Err(EINVAL);
        }
        if !Capability::SysRawio.held() {
            return Err(EPERM);
        }
        Ok(Arc::new(Self, GFP_KERNEL)?)
    }

    fn check_extension(_this: Option<&Self>, extension: c_ulong) -> c_long {
        let known = extension == EXTENSION;
        c_long::from(known && enabled())
    }

    fn ioctl(_this: ArcBorrow<'_, Self>, _cmd: u32, _arg: UserPtr) -> Result<c_long> {
        Err(ENOTTY)
    }

    fn attach_group(_this: ArcBorrow<'_, Self>, _group: NewGroup<'_>) -> Result {
        Ok(())
    }

    fn detach_group(_this: ArcBorrow<'_, Self>, _group: &IommuGroup) {}
}
