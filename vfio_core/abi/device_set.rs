// SPDX-License-Identifier: GPL-2.0

//! Device sets: devices that one reset hits, and the lock around opening and closing them.
//!
//! The sets are `struct vfio_device_set`, because C drivers take their lock and walk their list.

use kernel::{
    prelude::*,
    static_lock_class, //
};
use kernel_ext::{
    bindings,
    tree::Node, //
};

use super::{
    device::Device,
    globals::DEVICE_SETS, //
};

/// A set in the table.
///
/// # Invariants
///
/// The pointer is valid until the set's `device_count`, guarded by the table's lock, is zero.
pub(crate) struct Set(*mut bindings::vfio_device_set);

// SAFETY: What is in the set is guarded by the table's lock or by its own.
unsafe impl Send for Set {}

impl Set {
    fn new(id: usize) -> Result<Self> {
        let set = KBox::into_raw(KBox::new(
            bindings::vfio_device_set {
                set_id: id as *mut _,
                ..pin_init::zeroed()
            },
            GFP_KERNEL,
        )?);
        // SAFETY: The set is ours, and stays where it is until it is freed.
        unsafe {
            bindings::__mutex_init(
                &raw mut (*set).lock,
                c"vfio_device_set::lock".as_char_ptr(),
                static_lock_class!().as_ptr(),
            );
            bindings::INIT_LIST_HEAD(&raw mut (*set).device_list);
        }
        Ok(Self(set))
    }
}

/// Puts `device` into the set `id`, which is made if need be.
pub(super) fn assign(device: &Device, id: usize) -> Result {
    if id == 0 {
        return Err(EINVAL);
    }
    let mut sets = DEVICE_SETS.lock();
    let set = match sets.get(&id) {
        Some(set) => set.0,
        None => {
            let set = Set::new(id)?.0;
            let node = Node::new(id, Set(set));
            // SAFETY: The set came from a box just now, and nobody refers to it.
            sets.insert(node.inspect_err(|_| drop(unsafe { KBox::from_raw(set) }))?);
            set
        }
    };
    // SAFETY: The set is in the table, whose lock is held. The device's fields are its set's,
    // and written once, before the device is registered.
    unsafe {
        (*set).device_count += 1;
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
    let set = unsafe { (*device).dev_set };
    if set.is_null() {
        return;
    }
    let mut sets = DEVICE_SETS.lock();
    // SAFETY: The set counts this device, so it is valid. The list is guarded by the set's lock,
    // the count by the table's.
    let (last, id) = unsafe {
        bindings::mutex_lock(&raw mut (*set).lock);
        bindings::kernel_ext_list_del(&raw mut (*device).dev_set_list);
        bindings::mutex_unlock(&raw mut (*set).lock);
        (*set).device_count -= 1;
        ((*set).device_count == 0, (*set).set_id as usize)
    };
    if last {
        sets.remove(&id);
        // SAFETY: No device and no table entry refers to the set, which came from a box.
        drop(unsafe { KBox::from_raw(set) });
    }
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
