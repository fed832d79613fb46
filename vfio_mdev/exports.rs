// SPDX-License-Identifier: GPL-2.0

//! The functions of `include/linux/mdev.h`, for C drivers.
//!
//! `exports.c` exports them in the same way as the kernel's own `mdev.ko`.

use kernel::{
    error::from_result,
    ffi::c_int, //
};
use kernel_ext::bindings;

use crate::{
    bus,
    parent, //
};

/// Registers `parent` on `dev`, with the `count` `types` of device that `driver` can create.
///
/// # Safety
///
/// `dev` and `driver` are registered, and the names of the `count` `types` are set. All of them
/// stay valid until [`mdev_unregister_parent`].
#[no_mangle]
unsafe extern "C" fn mdev_register_parent(
    parent: *mut bindings::mdev_parent,
    dev: *mut bindings::device,
    driver: *mut bindings::mdev_driver,
    types: *mut *mut bindings::mdev_type,
    count: u32,
) -> c_int {
    // SAFETY: By this function's contract.
    from_result(|| unsafe { parent::register(parent, dev, driver, types, count) }.map(|()| 0))
}

/// Removes all devices of `parent`, waits until they have no users, and unregisters `parent`.
///
/// # Safety
///
/// `parent` is registered.
#[no_mangle]
unsafe extern "C" fn mdev_unregister_parent(parent: *mut bindings::mdev_parent) {
    // SAFETY: By this function's contract.
    unsafe { parent::unregister(parent) };
}

/// Registers `driver` with the bus.
///
/// # Safety
///
/// `driver` stays valid until [`mdev_unregister_driver`].
#[no_mangle]
unsafe extern "C" fn mdev_register_driver(driver: *mut bindings::mdev_driver) -> c_int {
    // SAFETY: By this function's contract.
    from_result(|| unsafe { bus::register_driver(driver) }.map(|()| 0))
}

/// Unregisters `driver`.
///
/// # Safety
///
/// `driver` is registered and has no parents.
#[no_mangle]
unsafe extern "C" fn mdev_unregister_driver(driver: *mut bindings::mdev_driver) {
    // SAFETY: By this function's contract.
    unsafe { bindings::driver_unregister(&raw mut (*driver).driver) }
}
