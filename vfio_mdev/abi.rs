// SPDX-License-Identifier: GPL-2.0

//! The interface to C, and the only unsafe code of this crate.
//!
//! [`bus`] contains the bus and its class. [`parent`], [`types`] and [`device`] wrap the structures
//! of `include/linux/mdev.h` and implement their sysfs attributes. [`exports`] defines the
//! functions of that header.
//!
//! The other modules implement Rust drivers: [`driver`] registers drivers and parents. [`instance`]
//! is a device together with its `struct vfio_device`, and [`ops`] has the VFIO callbacks.
//! [`migration`] migrates a device, and [`logging`] reports its writes. [`memory`] and [`pages`]
//! hold the data that devices copy, and [`peer`] and [`members`] implement the groups.

pub(crate) mod bus;
pub(crate) mod device;
pub(crate) mod driver;
mod exports;
pub(crate) mod globals;
pub(crate) mod instance;
mod locks;
mod logging;
pub(crate) mod members;
pub(crate) mod memory;
pub(crate) mod migration;
mod ops;
pub(crate) mod pages;
pub(crate) mod parent;
pub(crate) mod peer;
pub(crate) mod store;
pub(crate) mod sysfs;
pub(crate) mod types;
pub(crate) mod vfio;

/// Returns a random UUID (version 4).
pub(crate) fn random_uuid() -> [u8; 16] {
    let mut bytes = [0; 16];
    // SAFETY: The function writes 16 bytes, and the array has 16 bytes.
    unsafe { kernel_ext::bindings::generate_random_uuid(bytes.as_mut_ptr()) };
    bytes
}
