// SPDX-License-Identifier: GPL-2.0

//! The attribute `peer_to_peer_resource_uuid` of devices whose type has peers.
//!
//! It is an attribute of the driver. It appears when the device is bound and is removed before the
//! device is unbound, so that a device that is being removed cannot change groups.

use kernel::{
    error::from_result,
    ffi::{
        c_char,
        c_int, //
    },
    prelude::*, //
};
use kernel_ext::bindings;

use super::{
    device::Mdev,
    sysfs::{
        self,
        Table, //
    }, //
};
use crate::{
    peers,
    uuid::Uuid, //
};

static PEER: Table<bindings::device_attribute> = Table({
    let mut attribute: bindings::device_attribute = pin_init::zeroed();
    attribute.attr = sysfs::attribute(c"peer_to_peer_resource_uuid", 0o644);
    attribute.__bindgen_anon_1.show_const = Some(show_callback);
    attribute.__bindgen_anon_2.store_const = Some(store_callback);
    attribute
});

static ATTRIBUTES: Table<[*const bindings::attribute; 2]> =
    Table([&raw const PEER.0.attr, core::ptr::null()]);

static GROUP: Table<bindings::attribute_group> = Table({
    let mut group: bindings::attribute_group = pin_init::zeroed();
    group.__bindgen_anon_1.is_visible_const = Some(is_visible_callback);
    group.__bindgen_anon_2.attrs_const = (&raw const ATTRIBUTES.0).cast();
    group
});

static GROUPS: Table<[*const bindings::attribute_group; 2]> =
    Table([&raw const GROUP.0, core::ptr::null()]);

/// Returns the attribute groups of a Rust driver's devices.
pub(super) fn groups() -> *mut *const bindings::attribute_group {
    (&raw const GROUPS.0).cast_mut().cast()
}

/// Returns the UUID of a device of the bus.
///
/// # Safety
///
/// `dev` is a device of the bus `mdev` that exists during the call.
unsafe fn uuid_of(dev: *mut bindings::device) -> Uuid {
    // SAFETY: By this function's contract.
    unsafe { Mdev::from_raw(dev.cast()) }.uuid()
}

/// # Safety
///
/// Called by sysfs with the kobject of a bound device of the bus.
unsafe extern "C" fn is_visible_callback(
    kobj: *mut bindings::kobject,
    attribute: *const bindings::attribute,
    _index: c_int,
) -> bindings::umode_t {
    let offset = core::mem::offset_of!(bindings::device, kobj);
    // SAFETY: By this function's contract.
    match peers::find(unsafe { uuid_of(kobj.wrapping_byte_sub(offset).cast()) }) {
        // SAFETY: sysfs passes an attribute of the group above.
        Some(_) => unsafe { (*attribute).mode },
        None => 0,
    }
}

/// # Safety
///
/// Called by sysfs with a bound device of the bus and a page to fill.
unsafe extern "C" fn show_callback(
    dev: *mut bindings::device,
    _attribute: *const bindings::device_attribute,
    page: *mut c_char,
) -> isize {
    from_result(|| {
        // SAFETY: By this function's contract.
        let peer = peers::find(unsafe { uuid_of(dev) }).ok_or(ENODEV)?;
        // SAFETY: By this function's contract.
        unsafe { sysfs::show(page, peer.uuid()) }
    })
}

/// # Safety
///
/// Called by sysfs with a bound device of the bus and the bytes that were written.
unsafe extern "C" fn store_callback(
    dev: *mut bindings::device,
    _attribute: *const bindings::device_attribute,
    page: *const c_char,
    count: usize,
) -> isize {
    from_result(|| {
        // SAFETY: By this function's contract.
        let (own, text) = unsafe { (uuid_of(dev), sysfs::stored(page, count)) };
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let wanted = Uuid::parse(text).ok_or(EINVAL)?;
        peers::assign(&peers::find(own).ok_or(ENODEV)?, wanted)?;
        Ok(count as isize)
    })
}
