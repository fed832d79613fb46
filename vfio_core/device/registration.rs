// SPDX-License-Identifier: GPL-2.0

//! Registering and unregistering devices.

#[allow(unsafe_code)]
mod abi;

pub(crate) use abi::{
    put,
    Joined,
    Registered,
    RegistrationRef,
    Unregistered, //
};

use kernel::{
    prelude::*,
    types::ScopeGuard, //
};
use kernel_ext::{
    bindings,
    iommu_driver::GroupType,
    tree::Slot, //
};

use crate::{
    device::{
        cdev,
        set,
        Device, //
    },
    group::{
        registry,
        Group, //
    }, //
};

/// `vfio_register_group_dev()`: registers a device behind an IOMMU.
///
/// # Errors
///
/// Returns `EINVAL` if no IOMMU confines the device and no-IOMMU mode is off, or if DMA through its
/// IOMMU is not cache coherent, since userspace has no means to maintain coherency; `ENOMEM`.
pub(crate) fn register_physical(mut device: Unregistered<'_>) -> Result {
    check_driver(&device)?;
    set::ensure(&mut device)?;
    let (device, group) = registry::join_physical(device)?;
    let has_iommu = group.kind() == GroupType::Iommu;
    if has_iommu && !device.iommu_capable(bindings::iommu_cap_IOMMU_CAP_CACHE_COHERENCY) {
        dev_warn!(
            device.parent(),
            "vfio: not supported, because DMA through its IOMMU is not cache coherent\n"
        );
        return Err(EINVAL);
    }
    let noiommu = cfg!(CONFIG_IOMMUFD_NOIOMMU) && !has_iommu && !device.has_iommu();
    if noiommu {
        dev_warn!(
            device.parent(),
            "Adding kernel taint for vfio-noiommu cdev\n"
        );
    }
    register(device, &group, noiommu, has_iommu)
}

/// `vfio_register_emulated_iommu_dev()`: registers a device that does no DMA of its own. Its driver
/// pins pages for it.
pub(crate) fn register_emulated(mut device: Unregistered<'_>) -> Result {
    check_driver(&device)?;
    set::ensure(&mut device)?;
    let (device, group) = registry::join_software(device, GroupType::Emulated)?;
    register(device, &group, false, true)
}

/// Checks that the driver of `device` works on this kernel.
fn check_driver(device: &Device) -> Result {
    if cfg!(CONFIG_IOMMUFD) && !device.can_use_iommufd() {
        dev_warn!(
            device.parent(),
            "vfio: the driver lacks a callback for IOMMUFD: bind_iommufd, unbind_iommufd, attach_ioas or detach_ioas\n"
        );
        return Err(EINVAL);
    }
    Ok(())
}

/// Registers `device`, which is in `group`, under a name that says whether it is `noiommu`. Without
/// an IOMMU only privileged processes can open its file.
fn register(device: Joined<'_>, group: &Group, noiommu: bool, has_iommu: bool) -> Result {
    let slot = Slot::new()?;
    // A program may open the file as soon as sysfs has the device.
    let file = cdev::publish(&device, has_iommu)?;
    let device = device.register(noiommu, file.as_deref())?;
    file.map(ScopeGuard::dismiss);
    group.add_device(&device, slot);
    #[cfg(CONFIG_VFIO_DEBUGFS)]
    device.show_debugfs();
    Ok(())
}

/// Unregisters a device. Returns when the device has no users any more.
pub(crate) fn unregister(device: Registered<'_>) {
    drop(device.unregister());
}
