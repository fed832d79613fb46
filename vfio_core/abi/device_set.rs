// SPDX-License-Identifier: GPL-2.0

//! Device sets: devices that are affected by the same reset, and the lock for opening and closing
//! them.
//!
//! A set is a `struct vfio_device_set`, because C drivers take its lock and walk its list.

use core::{
    ptr::NonNull,
    sync::atomic::Ordering, //
};

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

/// A set. Dropping it frees it.
///
/// # Invariants
///
/// Points to a set that was allocated as a box, and owns it.
pub(crate) struct Set(NonNull<bindings::vfio_device_set>);

// SAFETY: The fields of a set are guarded by the table's lock or by the set's lock.
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
        // SAFETY: This function owns the set, which does not move until it is freed.
        unsafe {
            bindings::__mutex_init(
                &raw mut set.lock,
                c"vfio_device_set::lock".as_char_ptr(),
                static_lock_class!().as_ptr(),
            );
            bindings::INIT_LIST_HEAD(&raw mut set.device_list);
        }
        // INVARIANT: The box was leaked above.
        Ok(Self(NonNull::from(set)))
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        drop(unsafe { KBox::from_raw(self.0.as_ptr()) });
    }
}

/// The sets that have a device, indexed by id.
///
/// # Invariants
///
/// A set is in the table, and therefore valid, while its `device_count` is not zero. The table's
/// lock guards that field and no other field of a set.
pub(crate) struct Sets(Tree<usize, Set>);

impl Sets {
    /// Creates an empty table.
    pub(super) const fn new() -> Self {
        Self(Tree::new())
    }

    /// Increments the device count of the set `id`. Returns `None` if there is no such set.
    fn count(&mut self, id: usize) -> Option<NonNull<bindings::vfio_device_set>> {
        let set = self.0.get(&id)?.0;
        // SAFETY: The set is in the table, and the table's lock is held because the table is
        // borrowed from it.
        unsafe { (*set.as_ptr()).device_count += 1 };
        Some(set)
    }

    /// Decrements the device count of `set`. Removes the set from the table and returns it if this
    /// was its last device.
    ///
    /// # Safety
    ///
    /// The caller owns one count of `set`, and does not use the set through that count afterwards.
    unsafe fn discount(&mut self, set: NonNull<bindings::vfio_device_set>) -> Option<Set> {
        // SAFETY: The caller's count keeps the set valid. The table's lock is held because the
        // table is borrowed from it.
        let set = unsafe { &mut *set.as_ptr() };
        set.device_count -= 1;
        if set.device_count > 0 {
            return None;
        }
        self.0.remove(&(set.set_id as usize))
    }
}

/// Increments the device count of the set `id`. Creates the set if it does not exist.
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
        // Another thread created the set meanwhile.
        return Ok(set);
    }
    sets.0.insert(node);
    // SAFETY: The set is now in the table, whose lock is held.
    unsafe { (*new.as_ptr()).device_count = 1 };
    Ok(new)
}

/// Adds `device` to the set `id`. Creates the set if it does not exist.
///
/// The table's lock is not held while this waits for the set's lock, which a driver may hold for
/// any time. So other devices don't have to wait for that driver.
pub(super) fn assign(device: &Device, id: usize) -> Result {
    if id == 0 {
        return Err(EINVAL);
    }
    let set = join(id)?.as_ptr();
    // SAFETY: The set counts this device, so it is valid. The set's lock is held while the device's
    // fields are written, which happens once, before the device is registered.
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

/// Removes a device from its set, if it is in one, before the device is freed.
///
/// # Safety
///
/// Nothing else uses the device any more.
pub(super) unsafe fn release(device: *mut bindings::vfio_device) {
    // SAFETY: By this function's contract.
    let Some(set) = NonNull::new(unsafe { (*device).dev_set }) else {
        return;
    };
    // SAFETY: The set counts this device, so it is valid, and its lock guards the list.
    unsafe {
        bindings::mutex_lock(&raw mut (*set.as_ptr()).lock);
        bindings::kernel_ext_list_del(&raw mut (*device).dev_set_list);
        bindings::mutex_unlock(&raw mut (*set.as_ptr()).lock);
    }
    // SAFETY: This drops the count of the device, which is no longer in the set.
    let last = unsafe { DEVICE_SETS.lock().discount(set) };
    drop(last);
}

/// Returns the sum of the open counts of the devices in `set`.
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

/// Returns the device in `set` whose parent is `dev`, or null.
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
    // SAFETY: As above, and the list is well formed.
    let mut entry = unsafe { (*head).next };
    core::iter::from_fn(move || {
        if entry == head {
            return None;
        }
        let offset = core::mem::offset_of!(bindings::vfio_device, dev_set_list);
        let device = entry.wrapping_byte_sub(offset).cast();
        // SAFETY: The entry is in the list, which does not change while the lock is held.
        entry = unsafe { (*entry).next };
        Some(device)
    })
}

/// A held lock of a device's set. The lock guards opening and closing of the set's devices.
pub(crate) struct SetGuard<'a> {
    device: &'a Device,
    _not_send: kernel::types::NotThreadSafe,
}

impl<'a> SetGuard<'a> {
    /// Locks the set of `device`. The device is registered and therefore in a set.
    pub(super) fn lock(device: &'a Device) -> Self {
        // SAFETY: A registered device has a set, which exists as long as the device.
        unsafe { bindings::mutex_lock(&raw mut (*(*device.as_ptr()).dev_set).lock) };
        Self {
            device,
            _not_send: kernel::types::NotThreadSafe,
        }
    }

    /// Returns the device that was passed to [`SetGuard::lock`].
    pub(crate) fn device(&self) -> &'a Device {
        self.device
    }

    /// Returns the number of open files of the device.
    pub(crate) fn open_count(&self) -> u32 {
        self.device.open_count().load(Ordering::Relaxed)
    }

    /// Counts a file of the device.
    pub(crate) fn count(&mut self) {
        self.set_open_count(self.open_count().saturating_add(1));
    }

    /// Discounts a file of the device.
    pub(crate) fn discount(&mut self) {
        self.set_open_count(self.open_count().saturating_sub(1));
    }

    fn set_open_count(&mut self, count: u32) {
        self.device.open_count().store(count, Ordering::Relaxed);
    }

    /// Calls the driver to open the device, whose first file has been counted.
    pub(crate) fn call_open(&mut self) -> Result {
        self.device.call_open()
    }

    /// Calls the driver to close the device, whose last file is still counted.
    pub(crate) fn call_close(&mut self) {
        self.device.call_close();
    }
}

impl Drop for SetGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: `SetGuard::lock` took the lock in this task.
        unsafe { bindings::mutex_unlock(&raw mut (*(*self.device.as_ptr()).dev_set).lock) };
    }
}
