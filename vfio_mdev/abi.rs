// SPDX-License-Identifier: GPL-2.0

//! The border to C, and the only unsafe code of this crate.
//!
//! [`bus`] is the bus with its class; [`parent`], [`types`] and [`device`] wrap the structures of
//! `include/linux/mdev.h` with what sysfs shows of them; [`exports`] defines the functions of that
//! header.

pub(crate) mod bus;
pub(crate) mod device;
mod exports;
pub(crate) mod globals;
pub(crate) mod parent;
pub(crate) mod sysfs;
pub(crate) mod types;

/// A UUID made of random bits, of version 4.
pub(crate) fn random_uuid() -> [u8; 16] {
    let mut bytes = [0; 16];
    // SAFETY: There is room for the 16 bytes that are written.
    unsafe { kernel_ext::bindings::generate_random_uuid(bytes.as_mut_ptr()) };
    bytes
}
