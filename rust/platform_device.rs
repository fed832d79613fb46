// SPDX-License-Identifier: GPL-2.0

//! Platform devices that a module creates.
//!
//! C header: [`include/linux/platform_device.h`](srctree/include/linux/platform_device.h)

use core::ptr::NonNull;

use kernel::{
    error::from_err_ptr,
    prelude::*, //
};

use crate::bindings;

/// A platform device of this module. Dropping it removes the device, and unbinds its driver first.
///
/// # Invariants
///
/// The device is registered.
pub struct PlatformDevice(NonNull<bindings::platform_device>);

// SAFETY: The only operation is to remove the device, which any thread may do.
unsafe impl Send for PlatformDevice {}
// SAFETY: A shared reference has no operations.
unsafe impl Sync for PlatformDevice {}

impl PlatformDevice {
    /// Adds the device `name.id`, and binds it to the driver `name` if there is one. Its firmware
    /// node has these properties of 32 bits.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `id` has more than 31 bits, `EEXIST` or `EBUSY` if the name is taken, `ENOMEM`,
    /// and the errors of sysfs. An error of the driver is only logged.
    pub fn new(name: &CStr, id: u32, properties: &[(&CStr, u32)]) -> Result<Self> {
        let mut entries = KVec::with_capacity(properties.len() + 1, GFP_KERNEL)?;
        for (name, value) in properties {
            let entry = bindings::property_entry {
                name: name.as_char_ptr(),
                length: size_of_val(value),
                type_: bindings::dev_prop_type_DEV_PROP_U32,
                __bindgen_anon_1: bindings::property_entry__bindgen_ty_1 {
                    pointer: core::ptr::from_ref(value).cast(),
                },
                ..Default::default()
            };
            entries.push(entry, GFP_KERNEL)?;
        }
        entries.push(bindings::property_entry::default(), GFP_KERNEL)?;
        let info = bindings::platform_device_info {
            name: name.as_char_ptr(),
            id: id.try_into()?,
            properties: entries.as_ptr(),
            ..Default::default()
        };
        // SAFETY: The entries are valid and end with an empty one. The function copies them with
        // names and values, and the name of the device.
        let device = unsafe { bindings::platform_device_register_full(&raw const info) };
        // INVARIANT: The device was just registered.
        Ok(Self(NonNull::new(from_err_ptr(device)?).ok_or(ENOMEM)?))
    }
}

impl Drop for PlatformDevice {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::platform_device_unregister(self.0.as_ptr()) };
    }
}
