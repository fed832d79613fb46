// SPDX-License-Identifier: GPL-2.0

//! Device sets: devices that one reset hits, and the lock around opening and closing them.
//!
//! The sets are `struct vfio_device_set`, because C drivers take their lock and walk their list.

use core::ptr::NonNull;

use kernel::{
    prelude::*,
    static_lock_class, //
};
use kernel_ext::{
    bindings,
    tree::{
        Node,
        Tree, //
    }, //
};

use super::{
    device::Device,
    globals::DEVICE_SETS, //
};

/// A set; dropping it frees it.
///
/// # Invariants
///
/// Points at a set that came from a box and is this value's.
pub(crate) struct Set(NonNull<bindings::vfio_device_set>);

// SAFETY: What is in the set is guarded by the table's lock or by its own.
unsafe impl Send for Set {}

impl Set {
    fn new(id: usize) -> Result<Self> {
        let set = KBox::leak(KBox::new(
            bindings::vfio_device_set {
                set_id: id as *mut _,
                ..pin_init::zeroed()
            },
            GFP_KERNEL,
        )?);
        // SAFETY: The set is ours, and stays where it is until it is freed.
        unsafe {
            bindings::__mutex_init(
                &raw mut set.lock,
                c"vfio_device_set::lock".as_char_ptr(),
                static_lock_class!().as_ptr(),
            );
            bindings::INIT_LIST_HEAD(&raw mut set.device_list);
        }
        // INVARIANT: Leaked just now.
        Ok(Self(NonNull::from(set)))
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        drop(unsafe { KBox::from_raw(self.0.as_ptr()) });
    }
}

/// The sets that have a device, by their ids.
///
/// # Invariants
///
/// A set is in the table, and so valid, while its `device_count` is not zero; the table's lock guards
/// that field, and no other one of a set.
pub(crate) struct Sets(Tree<usize, Set>);

impl Sets {
    /// A table without sets.
    pub(super) const fn new() -> Self {
        Self(Tree::new())
    }

    /// Counts one more device of the set `id`, if there is that set.
    fn count(&mut self, id: usize) -> Option<NonNull<bindings::vfio_device_set>> {
        let set = self.0.get(&id)?.0;
        // SAFETY: The set is in the table, and the table is borrowed from its lock.
        unsafe { (*set.as_ptr()).device_count += 1 };
        Some(set)
    }

    /// Counts a device out, and takes the set out of the table with the last one.
    ///
    /// # Safety
    ///
    /// The caller has one count of `set`, and does not use the set by it any more.
    unsafe fn discount(&mut self, set: NonNull<bindings::vfio_device_set>) -> Option<Set> {
        // SAFETY: The caller's count keeps the set valid; the table is borrowed from its lock.
        let set = unsafe { &mut *set.as_ptr() };
        set.device_count -= 1;
        if set.device_count > 0 {
            return None;
        }
        self.0.remove(&(set.set_id as usize))
    }
}

/// Counts one more device of the set `id`, which is made if need be.
fn join(id: usize) -> Result<NonNull<bindings::vfio_device_set>> {
    let present = DEVICE_SETS.lock().count(id);
    if let Some(set) = present {
        return Ok(set);
    }
    let set = Set::new(id)?;
    let new = set.0;
    let node = Node::new(id, set)?;
    let mut sets = DEVICE_SETS.lock();
    if let Some(set) = sets.count(id) {
        // Another thread has made it meanwhile.
        return Ok(set);
    }
    sets.0.insert(node);
    // SAFETY: The set is in the table now, whose lock is held.
    unsafe { (*new.as_ptr()).device_count = 1 };
    Ok(new)
}

/// Puts `device` into the set `id`, which is made if need be.
///
/// The table's lock is not held while this waits for the set's, which a driver may hold as long as it
/// likes: other devices don't wait for that driver.
pub(super) fn assign(device: &Device, id: usize) -> Result {
    if id == 0 {
        return Err(EINVAL);
    }
    let set = join(id)?.as_ptr();
    // SAFETY: The set counts this device, so it is valid. The device's fields are its set's, and
    // written once, before the device is registered.
    unsafe {
        bindings::mutex_lock(&raw mut (*set).lock);
        (*device.as_ptr()).dev_set = set;
        bindings::list_add_tail(
            &raw mut (*device.as_ptr()).dev_set_list,
            &raw mut (*set).device_list,
        );
        bindings::mutex_unlock(&raw mut (*set).lock);
    }
    Ok(())
}

/// Takes a device that is about to be freed out of its set, if it is in one.
///
/// # Safety
///
/// Nobody else uses the device any more.
pub(super) unsafe fn release(device: *mut bindings::vfio_device) {
    // SAFETY: By this function's contract.
    let Some(set) = NonNull::new(unsafe { (*device).dev_set }) else {
        return;
    };
    // SAFETY: The set counts this device, so it is valid; its lock guards the list.
    unsafe {
        bindings::mutex_lock(&raw mut (*set.as_ptr()).lock);
        bindings::kernel_ext_list_del(&raw mut (*device).dev_set_list);
        bindings::mutex_unlock(&raw mut (*set.as_ptr()).lock);
    }
    // SAFETY: This is the count of the device, which is in the set no more.
    let last = unsafe { DEVICE_SETS.lock().discount(set) };
    drop(last);
}

/// How many times the devices of `set` are open, all in all.
///
/// # Safety
///
/// `set` is valid and its lock is held.
pub(super) unsafe fn open_count(set: *mut bindings::vfio_device_set) -> u32 {
    // SAFETY: By this function's contract.
    unsafe { devices(set) }
        // SAFETY: The devices in the list are valid while the lock is held.
        .map(|device| unsafe { (*device).open_count })
        .sum()
}

/// The device of `set` that `dev` is the parent of, or null.
///
/// # Safety
///
/// `set` is valid and its lock is held.
pub(super) unsafe fn find(
    set: *mut bindings::vfio_device_set,
    dev: *mut bindings::device,
) -> *mut bindings::vfio_device {
    // SAFETY: By this function's contract.
    unsafe { devices(set) }
        // SAFETY: The devices in the list are valid while the lock is held.
        .find(|&device| unsafe { (*device).dev } == dev)
        .unwrap_or(core::ptr::null_mut())
}

/// # Safety
///
/// `set` is valid and its lock is held until the iterator is done.
unsafe fn devices(
    set: *mut bindings::vfio_device_set,
) -> impl Iterator<Item = *mut bindings::vfio_device> {
    // SAFETY: By this function's contract.
    let head = unsafe { &raw mut (*set).device_list };
    // SAFETY: As above; the list is well formed.
    let mut entry = unsafe { (*head).next };
    core::iter::from_fn(move || {
        if entry == head {
            return None;
        }
        let offset = core::mem::offset_of!(bindings::vfio_device, dev_set_list);
        let device = entry.wrapping_byte_sub(offset).cast();
        // SAFETY: The entry is in the list, which does not change.
        entry = unsafe { (*entry).next };
        Some(device)
    })
}

/// The lock of a device's set, held. Guards the opening and closing of the set's devices.
pub(crate) struct SetGuard<'a> {
    device: &'a Device,
    _not_send: kernel::types::NotThreadSafe,
}

impl<'a> SetGuard<'a> {
    /// Takes the lock of the set of `device`, which is registered and therefore in one.
    pub(super) fn lock(device: &'a Device) -> Self {
        // SAFETY: A registered device has a set, which stays as long as the device.
        unsafe { bindings::mutex_lock(&raw mut (*(*device.as_ptr()).dev_set).lock) };
        Self {
            device,
            _not_send: kernel::types::NotThreadSafe,
        }
    }

    /// The device whose set is locked.
    pub(crate) fn device(&self) -> &'a Device {
        self.device
    }

    /// How many files the device has.
    pub(crate) fn open_count(&self) -> u32 {
        // SAFETY: The field is guarded by the lock that is held.
        unsafe { (*self.device.as_ptr()).open_count }
    }

    fn set_open_count(&mut self, count: u32) {
        // SAFETY: As above.
        unsafe { (*self.device.as_ptr()).open_count = count }
    }

    /// Counts one more file of a device that is open.
    pub(crate) fn opened_again(&mut self) {
        self.set_open_count(self.open_count() + 1);
    }

    /// Lets the driver open the device, and counts its first file.
    pub(crate) fn first_opened(&mut self) -> Result {
        self.set_open_count(1);
        self.device
            .call_open()
            .inspect_err(|_| self.set_open_count(0))
    }

    /// Counts a file out; lets the driver close the device and returns true if it was the last.
    pub(crate) fn closed(&mut self) -> bool {
        let count = self.open_count();
        if count == 1 {
            self.device.call_close();
        }
        self.set_open_count(count - 1);
        count == 1
    }
}

impl Drop for SetGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: Taken by `SetGuard::lock` in this task.
        unsafe { bindings::mutex_unlock(&raw mut (*(*self.device.as_ptr()).dev_set).lock) };
    }
}
