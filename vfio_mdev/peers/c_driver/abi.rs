// SPDX-License-Identifier: GPL-2.0

//! Peers of drivers in C.
//!
//! C header: `include/linux/mdev_peer.h` of this project.

use core::ptr::NonNull;

use kernel::{
    device::Device as BusDevice,
    error::to_result,
    ffi::{
        c_int,
        c_void, //
    },
    prelude::*,
    sync::Arc, //
};
use kernel_ext::{
    bindings,
    mm::may_warn, //
};

use super::{
    DriverKey,
    Erased,
    MoveDevice,
    Peer, //
};
use crate::bus;

/// Registers a device with VFIO.
pub(crate) type RegisterFn = unsafe extern "C" fn(*mut bindings::vfio_device) -> c_int;
/// Unregisters a device from VFIO.
pub(crate) type UnregisterFn = unsafe extern "C" fn(*mut bindings::vfio_device);
/// A function that is called for each member.
pub(crate) type MemberFn = unsafe extern "C" fn(*mut bindings::mdev_peer, *mut c_void) -> c_int;

/// The members of a group. This is the `struct mdev_peer_members` of C.
///
/// # Invariants
///
/// The peers were registered by [`register`], and stay in their group or in the list of all peers for
/// all of `'a`.
pub(crate) struct Members<'a>(&'a [Arc<Peer>]);

impl Members<'_> {
    /// Calls `f` with each member, until it returns something other than zero. Returns what it
    /// returned last.
    ///
    /// # Safety
    ///
    /// `f` can be called with each member and `data`.
    pub(crate) unsafe fn for_each(&self, f: MemberFn, data: *mut c_void) -> c_int {
        for member in self.0 {
            // SAFETY: By this function's contract. By the type invariants of `Members` and `Erased`
            // the owner is a `struct mdev_peer`, which exists.
            let result = unsafe { f(member.instance.owner.cast().as_ptr(), data) };
            if result != 0 {
                return result;
            }
        }
        0
    }

    fn as_ptr(&self) -> *const bindings::mdev_peer_members {
        core::ptr::from_ref(self).cast()
    }
}

/// Returns the entry of a registered device.
///
/// # Errors
///
/// `EINVAL` if the device is not registered.
///
/// # Safety
///
/// `peer` was zeroed before it was given to [`register`], and [`unregister`] is not called in `'a`.
unsafe fn entry<'a>(peer: *const bindings::mdev_peer) -> Result<&'a Arc<Peer>> {
    // SAFETY: By this function's contract. `register` has stored the pointer to a `Box` there, and the
    // pointer is null before that and after `unregister`.
    unsafe { (*peer).entry.cast::<Arc<Peer>>().as_ref() }.ok_or(EINVAL)
}

/// Logs that a driver's call for a device that is not registered was ignored.
fn warn_unregistered(call: &str) {
    if may_warn() {
        pr_warn!(
            "{call}: the device is not registered: a defect of the driver, which is ignored\n"
        );
    }
}

/// Decides whether `peer` may join `devices`.
fn admit(peer: &Peer, devices: &[Arc<Peer>]) -> Result {
    let raw: *mut bindings::mdev_peer = peer.instance.owner.cast().as_ptr();
    // SAFETY: `Peer::new` was called with this function by `register`, so the owner is a
    // `struct mdev_peer`. It exists while the peer is in the list of all peers, and so do its
    // functions.
    let admit = unsafe { (*(*raw).ops).admit };
    let Some(admit) = admit else {
        let parent = |peer: &Peer| {
            let dev: *const bindings::device = core::ptr::from_ref(&*peer.dev).cast();
            // SAFETY: A device that is on the bus has its parent.
            unsafe { (*dev).parent }
        };
        let siblings = devices.iter().all(|device| parent(device) == parent(peer));
        return siblings.then_some(()).ok_or(EXDEV);
    };
    // INVARIANT: The lock of all peers is held. The devices have the driver of `peer`. All peers of a
    // driver in C were registered by `register`.
    let devices = Members(devices);
    // SAFETY: The function has this type.
    to_result(unsafe { admit(raw, devices.as_ptr()) })
}

/// Registers the device of `peer` with VFIO, in a group of its own.
///
/// # Errors
///
/// `EINVAL` if the device or the functions of the driver are missing, or if the device is not one of the
/// bus that is being bound; `ENOMEM`, and the errors of `register_device` and of sysfs.
///
/// # Safety
///
/// `device` and `ops` of `peer` are null or valid, and so is `dev` of the device. The device is
/// initialised. They and `peer` exist until [`unregister`], or until this fails. `register_device` and
/// `unregister_device` are the functions of VFIO.
pub(crate) unsafe fn register(
    peer: *mut bindings::mdev_peer,
    register_device: RegisterFn,
    unregister_device: UnregisterFn,
) -> Result {
    // SAFETY: By this function's contract.
    let (device, dev, driver) = unsafe {
        (*peer).entry = core::ptr::null_mut();
        let device = NonNull::new((*peer).device).ok_or(EINVAL)?;
        let dev = NonNull::new(device.as_ref().dev).ok_or(EINVAL)?;
        // The `struct vfio_device` could be for a device of another bus.
        let on_bus = core::ptr::eq(dev.as_ref().bus, bus::as_ptr());
        if !on_bus || dev.as_ref().driver.is_null() || (*peer).ops.is_null() {
            return Err(EINVAL);
        }
        (
            device,
            dev.as_ptr(),
            DriverKey(dev.as_ref().driver as usize),
        )
    };
    let move_device = match MoveDevice::get() {
        Some(found) => Some(Arc::new(found, GFP_KERNEL)?),
        None => None,
    };
    // INVARIANT: By this function's contract.
    let instance = Erased {
        device,
        owner: NonNull::new(peer.cast()).ok_or(EINVAL)?,
    };
    // SAFETY: The device of the bus is being bound.
    let dev: &BusDevice = unsafe { BusDevice::from_raw(dev) };
    let entry = Peer::new(dev, driver, instance, admit, move_device)?;
    let owned = KBox::into_raw(KBox::new(entry.clone(), GFP_KERNEL)?);
    // The device can be opened as soon as it is registered, so this is set before.
    // SAFETY: By this function's contract.
    unsafe { (*peer).entry = owned.cast() };
    super::register(
        &entry,
        // SAFETY: By this function's contract.
        || to_result(unsafe { register_device(device.as_ptr()) }),
        // SAFETY: By this function's contract; the device was registered.
        || unsafe { unregister_device(device.as_ptr()) },
    )
    .inspect_err(|_| {
        // SAFETY: The device is not registered, so nothing else uses the box.
        drop(unsafe {
            (*peer).entry = core::ptr::null_mut();
            KBox::from_raw(owned)
        });
    })
}

/// Unregisters the device of `peer` from VFIO, and removes it from its group. Has no effect if the
/// device is not registered.
///
/// # Safety
///
/// `peer` was zeroed before it was given to [`register`], and nothing else uses it from now on, except
/// that the device may be open.
pub(crate) unsafe fn unregister(
    peer: *mut bindings::mdev_peer,
    unregister_device: Option<UnregisterFn>,
) {
    // SAFETY: By this function's contract.
    let (owned, device) = unsafe { ((*peer).entry.cast::<Arc<Peer>>(), (*peer).device) };
    let Some(unregister_device) = unregister_device.filter(|_| !owned.is_null()) else {
        return warn_unregistered("mdev_peer_unregister");
    };
    // SAFETY: `register` has stored the pointer to the box, which is dropped below.
    let entry = unsafe { &*owned };
    // SAFETY: By this function's contract.
    super::unregister(entry, || unsafe { unregister_device(device) });
    // SAFETY: The device has left its group and is closed, so nothing else uses the box.
    drop(unsafe {
        (*peer).entry = core::ptr::null_mut();
        KBox::from_raw(owned)
    });
}

/// Counts a device as open.
///
/// # Errors
///
/// `EINVAL` if the device is not registered or is counted already; the errors of the driver.
///
/// # Safety
///
/// As for [`entry`], for the duration of the call.
pub(crate) unsafe fn opened(peer: *mut bindings::mdev_peer) -> Result {
    // SAFETY: By this function's contract. A device that is registered has its functions.
    let (entry, first) = unsafe { (entry(peer)?, (*(*peer).ops).first_open) };
    entry.opened(|members| {
        // INVARIANT: The lock of the members is held. All of them have the driver of `peer`.
        let members = Members(members);
        match first {
            // SAFETY: The function has this type.
            Some(first) => to_result(unsafe { first(peer, members.as_ptr()) }),
            None => Ok(()),
        }
    })
}

/// Undoes [`opened`]. Has no effect if the device is not counted.
///
/// # Safety
///
/// As for [`entry`], for the duration of the call.
pub(crate) unsafe fn closed(peer: *mut bindings::mdev_peer) {
    // SAFETY: By this function's contract.
    let Ok(entry) = (unsafe { entry(peer) }) else {
        return warn_unregistered("mdev_peer_closed");
    };
    // SAFETY: By this function's contract. A device that is registered has its functions.
    let last = unsafe { (*(*peer).ops).last_close };
    entry.closed(|members| {
        // INVARIANT: As in `opened`.
        let members = Members(members);
        if let Some(last) = last {
            // SAFETY: The function has this type.
            unsafe { last(peer, members.as_ptr()) }
        }
    });
}

/// Returns whether a device is counted as open.
///
/// # Safety
///
/// As for [`entry`], for the duration of the call.
pub(crate) unsafe fn is_open(peer: *const bindings::mdev_peer) -> bool {
    // SAFETY: By this function's contract.
    unsafe { entry(peer) }.is_ok_and(|peer| peer.is_open())
}

/// Calls `f` with the members of a device's group. No member joins or leaves, is opened or closed
/// during the call.
///
/// # Errors
///
/// `EINVAL` if the device is not registered.
///
/// # Safety
///
/// As for [`entry`], for the duration of the call.
pub(crate) unsafe fn with_members<R>(
    peer: *mut bindings::mdev_peer,
    f: impl FnOnce(&Members<'_>) -> R,
) -> Result<R> {
    // SAFETY: By this function's contract.
    let entry = unsafe { entry(peer) }?;
    // INVARIANT: As in `opened`.
    Ok(entry.with_members(|members| f(&Members(members))))
}

#[cfg(CONFIG_KUNIT)]
#[path = "tests/abi.rs"]
mod tests;
