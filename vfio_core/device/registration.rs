// SPDX-License-Identifier: GPL-2.0

//! Registering and unregistering devices.

#[allow(unsafe_code)]
mod abi;

pub(crate) use abi::{
    put,
    RegistrationRef, //
};

use kernel::prelude::*;
use kernel_ext::{
    bindings,
    iommu_driver::GroupType, //
};

use crate::{
    device::Device,
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
pub(crate) fn register_physical(device: &Device) -> Result {
    device.ensure_set()?;
    let group = registry::join_physical(device)?;
    let confined = group.kind() == GroupType::Iommu;
    if confined && !device.iommu_capable(bindings::iommu_cap_IOMMU_CAP_CACHE_COHERENCY) {
        dev_warn!(
            device.parent(),
            "vfio: not supported, because DMA through its IOMMU is not cache coherent\n"
        );
        registry::leave(device);
        return Err(EINVAL);
    }
    register(device, &group)
}

/// `vfio_register_emulated_iommu_dev()`: registers a device that does no DMA of its own. Its driver
/// pins pages for it.
pub(crate) fn register_emulated(device: &Device) -> Result {
    device.ensure_set()?;
    let group = registry::join_software(device, GroupType::Emulated)?;
    register(device, &group)
}

fn register(device: &Device, group: &Group) -> Result {
    device.add().inspect_err(|_| registry::leave(device))?;
    device.start_registration();
    group.add_device(device).inspect_err(|_| {
        device.del();
        registry::leave(device);
    })?;
    #[cfg(CONFIG_VFIO_DEBUGFS)]
    device.show_debugfs();
    Ok(())
}

/// Unregisters a device. Returns when the device has no users any more.
pub(crate) fn unregister(device: &Device) {
    let group = registry::unlist_device(device);
    #[cfg(CONFIG_VFIO_DEBUGFS)]
    device.hide_debugfs();
    device.del();
    device.end_registration(group.as_deref());
    registry::leave(device);
}
