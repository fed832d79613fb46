// SPDX-License-Identifier: GPL-2.0

//! The border to C, and the only unsafe code of this crate.
//!
//! [`bus`] is the bus with its class; [`parent`], [`types`] and [`device`] wrap the structures of
//! `include/linux/mdev.h` with what sysfs shows of them; [`exports`] defines the functions of that
//! header. Below the drivers in Rust: [`driver`] registers them and their parents, [`instance`] is a
//! device of theirs with its `struct vfio_device`, [`ops`] what VFIO calls, [`migration`] moves it and
//! [`logging`] says what it wrote; [`memory`] and [`pages`] are what devices copy to and from, [`peer`] and
//! [`members`] their groups.

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

/// A UUID made of random bits, of version 4.
pub(crate) fn random_uuid() -> [u8; 16] {
    let mut bytes = [0; 16];
    // SAFETY: There is room for the 16 bytes that are written.
    unsafe { kernel_ext::bindings::generate_random_uuid(bytes.as_mut_ptr()) };
    bytes
}
