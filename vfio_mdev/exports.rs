// SPDX-License-Identifier: GPL-2.0

//! The functions of `include/linux/mdev.h` and of `include/linux/mdev_peer.h`, for C drivers.
//!
//! `exports.c` exports the former in the same way as the kernel's own `mdev.ko`.

use kernel::{
    error::from_result,
    ffi::{
        c_int,
        c_void, //
    },
    prelude::*, //
};
use kernel_ext::bindings;

use crate::{
    bus,
    parent,
    peers::c_driver::{
        self,
        MemberFn,
        Members,
        RegisterFn,
        UnregisterFn, //
    }, //
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

/// Registers a device that can be in a group with others.
///
/// # Safety
///
/// As for [`c_driver::register`]; `mdev_peer_register()` of the header ensures the rest.
#[no_mangle]
pub(crate) unsafe extern "C" fn mdev_peer_register_with(
    peer: *mut bindings::mdev_peer,
    register_device: Option<RegisterFn>,
    unregister_device: Option<UnregisterFn>,
) -> c_int {
    from_result(|| {
        let register_device = register_device.ok_or(EINVAL)?;
        let unregister_device = unregister_device.ok_or(EINVAL)?;
        // SAFETY: By this function's contract.
        unsafe { c_driver::register(peer, register_device, unregister_device) }?;
        Ok(0)
    })
}

/// Unregisters a device that can be in a group with others.
///
/// # Safety
///
/// As for [`c_driver::unregister`].
#[no_mangle]
pub(crate) unsafe extern "C" fn mdev_peer_unregister_with(
    peer: *mut bindings::mdev_peer,
    unregister_device: Option<UnregisterFn>,
) {
    // SAFETY: By this function's contract.
    unsafe { c_driver::unregister(peer, unregister_device) };
}

/// Counts a device as open.
///
/// # Safety
///
/// `peer` is not unregistered meanwhile.
#[no_mangle]
pub(crate) unsafe extern "C" fn mdev_peer_opened(peer: *mut bindings::mdev_peer) -> c_int {
    // SAFETY: By this function's contract.
    from_result(|| unsafe { c_driver::opened(peer) }.map(|()| 0))
}

/// Counts a device as closed.
///
/// # Safety
///
/// `peer` is not unregistered meanwhile.
#[no_mangle]
pub(crate) unsafe extern "C" fn mdev_peer_closed(peer: *mut bindings::mdev_peer) {
    // SAFETY: By this function's contract.
    unsafe { c_driver::closed(peer) };
}

/// Calls `f` for each member of a device's group.
///
/// # Safety
///
/// `peer` is not unregistered meanwhile. `f` is null, or can be called with each member and `data`.
#[no_mangle]
pub(crate) unsafe extern "C" fn mdev_peer_for_each(
    peer: *mut bindings::mdev_peer,
    f: Option<MemberFn>,
    data: *mut c_void,
) -> c_int {
    from_result(|| {
        let f = f.ok_or(EINVAL)?;
        // SAFETY: By this function's contract.
        unsafe { c_driver::with_members(peer, |members| members.for_each(f, data)) }
    })
}

/// Returns whether a member is open. If it is, it stays open until the function returns that was
/// called with it.
///
/// # Safety
///
/// `member` is what a function of the driver got as an argument, and the function has not returned.
#[no_mangle]
pub(crate) unsafe extern "C" fn mdev_peer_is_open(member: *const bindings::mdev_peer) -> bool {
    // SAFETY: By this function's contract. A member is not unregistered before it leaves the group.
    unsafe { c_driver::is_open(member) }
}

/// Calls `f` for each of some members.
///
/// # Safety
///
/// `members` is what a function of the driver got as an argument, and the function has not returned.
/// `f` is null, or can be called with each member and `data`.
#[no_mangle]
pub(crate) unsafe extern "C" fn mdev_peer_members_for_each(
    members: *const bindings::mdev_peer_members,
    f: Option<MemberFn>,
    data: *mut c_void,
) -> c_int {
    from_result(|| {
        let f = f.ok_or(EINVAL)?;
        // SAFETY: By this function's contract. C has a pointer to a `Members`.
        Ok(unsafe { (*members.cast::<Members<'_>>()).for_each(f, data) })
    })
}
