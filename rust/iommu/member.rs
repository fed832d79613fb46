// SPDX-License-Identifier: GPL-2.0

//! What the devices of a group are bound to.

use kernel::{
    device::Device,
    prelude::*, //
};

use crate::bindings;

use super::group::raw_device;

/// Room for a driver's name; longer names are cut.
const NAME_SIZE: usize = 32;

/// The name of a driver.
pub struct DriverName([u8; NAME_SIZE]);

impl DriverName {
    /// The name, for messages.
    pub fn as_str(&self) -> &str {
        let name = CStr::from_bytes_until_nul(&self.0).unwrap_or_default();
        name.to_str().unwrap_or("?")
    }
}

/// What a device is bound to.
pub enum Binding {
    /// Nothing.
    Unbound,
    /// A driver that uses the DMA API, so that nobody else can have the device's group.
    Kernel(DriverName),
    /// A driver that leaves DMA to others, such as vfio-pci, or the port driver of a bridge.
    Unmanaged(DriverName),
    /// It is being bound or unbound just now.
    Changing,
}

impl Binding {
    /// What `dev` is bound to now. Doesn't wait for a driver that is being bound.
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
