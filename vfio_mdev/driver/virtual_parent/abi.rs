// SPDX-License-Identifier: GPL-2.0

//! The `struct class` and the `struct device` of a parent without hardware.

use core::ptr::NonNull;

use kernel::{
    device::Device,
    error::from_err_ptr,
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    }, //
};
use kernel_ext::bindings;

/// A class of devices without hardware.
///
/// # Invariants
///
/// The class is registered.
pub(super) struct VirtualClass(NonNull<bindings::class>);

// SAFETY: It is only used by functions that do their own locking.
unsafe impl Send for VirtualClass {}
// SAFETY: As above.
unsafe impl Sync for VirtualClass {}

impl VirtualClass {
    pub(super) fn new(name: &'static CStr) -> Result<Self> {
        // SAFETY: The name is static.
        let class = from_err_ptr(unsafe { bindings::class_create(name.as_char_ptr()) })?;
        // INVARIANT: The class was just registered.
        Ok(Self(NonNull::new(class).ok_or(ENOMEM)?))
    }
}

impl Drop for VirtualClass {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the class is registered. Its devices hold references, so it
        // has none left.
        unsafe { bindings::class_destroy(self.0.as_ptr()) };
    }
}

/// A device without hardware.
///
/// # Invariants
///
/// The device is registered.
pub(super) struct VirtualDevice {
    device: NonNull<bindings::device>,
    // Dropped after the device.
    pub(super) class: Arc<VirtualClass>,
}

// SAFETY: It is only used by functions that do their own locking.
unsafe impl Send for VirtualDevice {}
// SAFETY: As above.
unsafe impl Sync for VirtualDevice {}

impl VirtualDevice {
    pub(super) fn new(class: Arc<VirtualClass>, name: &CStr) -> Result<Self> {
        // SAFETY: The class is registered, and the format matches its argument.
        let device = from_err_ptr(unsafe {
            bindings::device_create(
                class.0.as_ptr(),
                core::ptr::null_mut(),
                0,
                core::ptr::null_mut(),
                c"%s".as_char_ptr(),
                name.as_char_ptr(),
            )
        })?;
        let device = NonNull::new(device).ok_or(ENOMEM)?;
        // INVARIANT: The device was just registered.
        Ok(Self { device, class })
    }

    pub(super) fn device(&self) -> ARef<Device> {
        // SAFETY: By the type invariant.
        unsafe { Device::get_device(self.device.as_ptr()) }
    }
}

impl Drop for VirtualDevice {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::device_unregister(self.device.as_ptr()) };
    }
}
