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
use kernel_ext::bindings;

use super::{
    DriverKey,
    Erased,
    MoveDevice,
    Peer, //
};

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
/// # Safety
///
/// [`register`] has registered `peer`, and [`unregister`] is not called in `'a`.
unsafe fn entry<'a>(peer: *const bindings::mdev_peer) -> &'a Arc<Peer> {
    // SAFETY: By this function's contract. `register` has stored the pointer to a `Box` there.
    unsafe { &*(*peer).entry.cast() }
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
/// `ENOMEM`, and the errors of `register_device` and of sysfs.
///
/// # Safety
///
/// `device` and `ops` of `peer` are set. The device is initialised, and the device of the bus that it
/// belongs to is being bound to a driver in C. They and `peer` exist until [`unregister`].
/// `register_device` and `unregister_device` are the functions of VFIO.
pub(crate) unsafe fn register(
    peer: *mut bindings::mdev_peer,
    register_device: RegisterFn,
    unregister_device: UnregisterFn,
) -> Result {
    // SAFETY: By this function's contract.
    let (device, dev) = unsafe { ((*peer).device, (*(*peer).device).dev) };
    // SAFETY: As above. A device that is being bound has a driver.
    let driver = DriverKey(unsafe { (*dev).driver } as usize);
    let move_device = match MoveDevice::get() {
        Some(found) => Some(Arc::new(found, GFP_KERNEL)?),
        None => None,
    };
    // INVARIANT: By this function's contract.
    let instance = Erased {
        device: NonNull::new(device).ok_or(EINVAL)?,
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
        || to_result(unsafe { register_device(device) }),
        // SAFETY: By this function's contract; the device was registered.
        || unsafe { unregister_device(device) },
    )
    .inspect_err(|_| {
        // SAFETY: The device is not registered, so nothing else uses the box.
        drop(unsafe { KBox::from_raw(owned) });
    })
}

/// Unregisters the device of `peer` from VFIO, and removes it from its group.
///
/// # Safety
///
/// [`register`] has registered `peer`, which nothing else uses from now on.
pub(crate) unsafe fn unregister(peer: *mut bindings::mdev_peer, unregister_device: UnregisterFn) {
    // SAFETY: By this function's contract. `register` has stored the pointer.
    let (entry, device) = unsafe {
        let entry: KBox<Arc<Peer>> = KBox::from_raw((*peer).entry.cast());
        (entry, (*peer).device)
    };
    // SAFETY: By this function's contract.
    super::unregister(&entry, || unsafe { unregister_device(device) });
}

/// Counts a device as open.
///
/// # Errors
///
/// The errors of the driver.
///
/// # Safety
///
/// As for [`entry`], for the duration of the call.
pub(crate) unsafe fn opened(peer: *mut bindings::mdev_peer) -> Result {
    // SAFETY: By this function's contract.
    let (entry, first) = unsafe { (entry(peer), (*(*peer).ops).first_open) };
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

/// Undoes [`opened`].
///
/// # Safety
///
/// As for [`entry`], for the duration of the call.
pub(crate) unsafe fn closed(peer: *mut bindings::mdev_peer) {
    // SAFETY: By this function's contract.
    let (entry, last) = unsafe { (entry(peer), (*(*peer).ops).last_close) };
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
    unsafe { entry(peer) }.is_open()
}

/// Calls `f` with the members of a device's group. No member joins or leaves, is opened or closed
/// during the call.
///
/// # Safety
///
/// As for [`entry`], for the duration of the call.
pub(crate) unsafe fn with_members<R>(
    peer: *mut bindings::mdev_peer,
    f: impl FnOnce(&Members<'_>) -> R,
) -> R {
    // SAFETY: By this function's contract.
    unsafe { entry(peer) }.with_members(|members| {
        // INVARIANT: As in `opened`.
        f(&Members(members))
    })
}
