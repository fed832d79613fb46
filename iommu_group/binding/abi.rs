// SPDX-License-Identifier: GPL-2.0

//! The drivers to which the devices of a group are bound.

use kernel::{
    device::Device,
    prelude::*, //
};

use kernel_ext::{
    bindings,
    iommu::raw_device, //
};

/// Size of the buffer for the name of a driver; longer names are truncated.
const NAME_SIZE: usize = 32;

/// The name of a driver.
pub struct DriverName([u8; NAME_SIZE]);

impl DriverName {
    /// Returns the name, for messages.
    pub fn as_str(&self) -> &str {
        let name = CStr::from_bytes_until_nul(&self.0).unwrap_or_default();
        name.to_str().unwrap_or("?")
    }
}

/// The driver binding of a device.
pub enum Binding {
    /// No driver.
    Unbound,
    /// A driver that uses the DMA API, so that userspace can't own the DMA of the device's group.
    Kernel(DriverName),
    /// A driver that leaves DMA to other users (`driver_managed_dma`), such as vfio-pci or the port
    /// driver of a bridge. Only PCI drivers are recognised.
    Unmanaged(DriverName),
    /// The device is being bound or unbound.
    Changing,
}

impl Binding {
    /// Returns the current binding of `dev`. Doesn't wait for a driver that is being bound.
    pub fn of(dev: &Device) -> Self {
        let mut name = [0; NAME_SIZE];
        // SAFETY: The device is valid, and there is room for `NAME_SIZE` bytes.
        let kind = unsafe {
            bindings::kernel_ext_device_driver(raw_device(dev), name.as_mut_ptr().cast(), NAME_SIZE)
        };
        match kind {
            0 => Self::Unbound,
            1 => Self::Kernel(DriverName(name)),
            2 => Self::Unmanaged(DriverName(name)),
            _ => Self::Changing,
        }
    }
}
