// SPDX-License-Identifier: GPL-2.0

//! The attributes `peer_to_peer_resource_uuid` and `peer_to_peer_groups` of devices that can be in a
//! group with others.
//!
//! They exist from the registration of a device with VFIO until it is unregistered: a device that is
//! being removed cannot change groups. Drivers in Rust and in C have the same attributes.

use kernel::{
    error::{
        from_result,
        to_result, //
    },
    ffi::c_char,
    fmt,
    prelude::*,
    sync::Arc, //
};
use kernel_ext::{
    bindings,
    tree::Node, //
};

use super::{
    DeviceKey,
    Peer,
    PEERS,
    WITH_ATTRIBUTES, //
};
use crate::{
    sysfs::{
        self,
        Table, //
    },
    uuid::Uuid, //
};

static UUID: Table<bindings::device_attribute> = Table({
    let mut attribute: bindings::device_attribute = pin_init::zeroed();
    attribute.attr = sysfs::attribute(c"peer_to_peer_resource_uuid", 0o644);
    attribute.__bindgen_anon_1.show_const = Some(show_uuid_callback);
    attribute.__bindgen_anon_2.store_const = Some(store_uuid_callback);
    attribute
});

static SOFTWARE_GROUPS: Table<bindings::device_attribute> = Table({
    let mut attribute: bindings::device_attribute = pin_init::zeroed();
    attribute.attr = sysfs::attribute(c"peer_to_peer_groups", 0o444);
    attribute.__bindgen_anon_1.show_const = Some(show_groups_callback);
    attribute
});

static ATTRIBUTES: Table<[*const bindings::attribute; 3]> = Table([
    &raw const UUID.0.attr,
    &raw const SOFTWARE_GROUPS.0.attr,
    core::ptr::null(),
]);

static GROUP: Table<bindings::attribute_group> = Table({
    let mut group: bindings::attribute_group = pin_init::zeroed();
    group.__bindgen_anon_2.attrs_const = (&raw const ATTRIBUTES.0).cast();
    group
});

impl Peer {
    fn kobject(&self) -> *mut bindings::kobject {
        let dev: *mut bindings::device = core::ptr::from_ref(&*self.dev).cast_mut().cast();
        // SAFETY: The field is part of the structure.
        unsafe { &raw mut (*dev).kobj }
    }
}

/// Creates the attributes of a device that was registered with VFIO, if it can change groups.
///
/// # Errors
///
/// `ENOMEM`, and the errors of sysfs.
pub(super) fn create(peer: &Arc<Peer>) -> Result {
    if peer.move_device.is_none() {
        return Ok(());
    }
    let node = Node::new(peer.key(), peer.clone())?;
    WITH_ATTRIBUTES.lock().insert(node);
    // SAFETY: The device is on the bus, because its driver is registering it. The table is static.
    to_result(unsafe { bindings::sysfs_create_group(peer.kobject(), &raw const GROUP.0) })
        .inspect_err(|_| forget(peer))
}

/// Removes the attributes of a device. Waits for reads and writes of them.
pub(super) fn remove(peer: &Peer) {
    if peer.move_device.is_some() {
        // SAFETY: As for `create`, which created them.
        unsafe { bindings::sysfs_remove_group(peer.kobject(), &raw const GROUP.0) }
        forget(peer);
    }
}

/// Removes a device from the list. A static is never dropped: without devices, no memory is left.
fn forget(peer: &Peer) {
    let removed = WITH_ATTRIBUTES.lock().remove(&peer.key());
    debug_assert!(removed.is_some());
}

/// Returns the peer of a device that has the attributes.
///
/// # Errors
///
/// `ENODEV` if it has none.
fn peer_of(dev: *mut bindings::device) -> Result<Arc<Peer>> {
    let key = DeviceKey(dev as usize);
    Ok(WITH_ATTRIBUTES.lock().get(&key).ok_or(ENODEV)?.clone())
}

/// The numbers of software groups, with spaces between them.
struct Numbers(KVec<i32>);

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, number) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_fmt(fmt!("{}", number))?;
        }
        Ok(())
    }
}

/// # Safety
///
/// Called by sysfs with a device that has the attribute, and a page to fill.
unsafe extern "C" fn show_uuid_callback(
    dev: *mut bindings::device,
    _attribute: *const bindings::device_attribute,
    page: *mut c_char,
) -> isize {
    from_result(|| {
        // Does not take `PEERS`, which a thread holds that changes sysfs.
        let uuid = peer_of(dev)?.uuid();
        // SAFETY: By this function's contract.
        unsafe { sysfs::show(page, uuid) }
    })
}

/// # Safety
///
/// Called by sysfs with a device that has the attribute, and the bytes that were written.
unsafe extern "C" fn store_uuid_callback(
    dev: *mut bindings::device,
    _attribute: *const bindings::device_attribute,
    page: *const c_char,
    count: usize,
) -> isize {
    from_result(|| {
        // SAFETY: By this function's contract.
        let text = unsafe { core::slice::from_raw_parts(page.cast::<u8>(), count) };
        let uuid = Uuid::parse(text.strip_suffix(b"\n").unwrap_or(text)).ok_or(EINVAL)?;
        let peer = peer_of(dev)?;
        let move_device = peer.move_device.as_ref().ok_or(ENODEV)?;
        PEERS.lock().set_uuid(&peer, uuid, |group, commit| {
            // SAFETY: The attribute exists only while the device is registered: removing it waits
            // for the end of this call.
            unsafe { move_device.call(&peer, group, commit) }
        })?;
        Ok(count as isize)
    })
}

/// # Safety
///
/// Called by sysfs with a device that has the attribute, and a page to fill.
unsafe extern "C" fn show_groups_callback(
    dev: *mut bindings::device,
    _attribute: *const bindings::device_attribute,
    page: *mut c_char,
) -> isize {
    from_result(|| {
        let peer = peer_of(dev)?;
        let numbers = {
            let peers = PEERS.lock();
            peers.software_groups(peer.uuid())?
        };
        // SAFETY: By this function's contract.
        unsafe { sysfs::show(page, Numbers(numbers)) }.map_err(|_| EFBIG)
    })
}
