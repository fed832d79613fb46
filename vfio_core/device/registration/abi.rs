// SPDX-License-Identifier: GPL-2.0

//! The states of a device from its registration to the end of it, and the users of a registered
//! device, for which unregistering it waits.

use core::{
    mem::ManuallyDrop,
    ops::Deref,
    ptr::NonNull,
    sync::atomic::{
        AtomicI32,
        Ordering, //
    }, //
};

use kernel::{
    device::Bound,
    prelude::*,
    sync::Arc,
    time::msecs_to_jiffies, //
};
use kernel_ext::{
    bindings,
    chardev::DevNumber,
    module::ModuleRef,
    task::TaskLabel, //
};

use crate::{
    device::{
        cdev,
        Device, //
    },
    group::{
        registry,
        Group,
        GroupsGuard,
        IdleGroup, //
    }, //
};

/// The interval, in milliseconds, at which a driver is asked to release a device that is being
/// unregistered.
const REQUEST_INTERVAL: u32 = 10_000;

/// A device that is not registered.
///
/// # Invariants
///
/// The device is allocated for `'a` and not registered, and its driver is bound. No other thread
/// registers it or changes its set or its group.
pub(crate) struct Unregistered<'a>(&'a Device);

impl Deref for Unregistered<'_> {
    type Target = Device;

    fn deref(&self) -> &Device {
        self.0
    }
}

impl<'a> Unregistered<'a> {
    /// Wraps a pointer from a C driver.
    ///
    /// # Safety
    ///
    /// As for [`Device::from_raw`]. The device is not registered. The driver is bound to its parent,
    /// and calls no other function that registers it or adds it to a set during `'a`.
    pub(crate) unsafe fn from_raw(device: *mut bindings::vfio_device) -> Self {
        // INVARIANT: By this function's contract.
        // SAFETY: As above.
        Self(unsafe { Device::from_raw(device) })
    }

    /// Returns the device that the driver is bound to.
    pub(crate) fn parent(&self) -> &kernel::device::Device<Bound> {
        // SAFETY: By the type invariant.
        unsafe { self.0.parent().as_bound() }
    }

    /// Sets the device's group.
    pub(crate) fn join(self, group: Arc<Group>, groups: &mut GroupsGuard) -> Joined<'a> {
        // SAFETY: The device is not registered, so it is not open.
        drop(unsafe { self.exchange_group(Some(group), groups) });
        Joined(self)
    }

    /// Removes the device's group, and returns it.
    pub(crate) fn leave(&mut self, groups: &mut GroupsGuard) -> Option<Arc<Group>> {
        // SAFETY: As above.
        unsafe { self.exchange_group(None, groups) }
    }
}

/// A device that is in a group and not registered. Dropping it removes the device from the group.
pub(crate) struct Joined<'a>(Unregistered<'a>);

impl Deref for Joined<'_> {
    type Target = Device;

    fn deref(&self) -> &Device {
        &self.0
    }
}

impl<'a> Joined<'a> {
    /// Adds the device to sysfs as `vfioN`, or `noiommu-vfioN`, and starts counting its users. Its
    /// file, if it has one, gets `number`.
    ///
    /// # Errors
    ///
    /// Those of the driver core.
    pub(crate) fn register(
        self,
        noiommu: bool,
        number: Option<&DevNumber>,
    ) -> Result<Registered<'a>> {
        let device = self.0 .0;
        // SAFETY: The device is not registered, so it is not in sysfs.
        unsafe { device.add(noiommu, number) }?;
        device.start_registration();
        core::mem::forget(self);
        // INVARIANT: The device was just added, and its users are counted.
        Ok(Registered(device))
    }
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        registry::leave(&mut self.0);
    }
}

/// A registered device. It stays registered when this is dropped.
///
/// # Invariants
///
/// The device is in a group and in sysfs, and its users are counted. No other thread unregisters it
/// during `'a`.
pub(crate) struct Registered<'a>(&'a Device);

impl Deref for Registered<'_> {
    type Target = Device;

    fn deref(&self) -> &Device {
        self.0
    }
}

impl<'a> Registered<'a> {
    /// Wraps a pointer from a C driver.
    ///
    /// # Safety
    ///
    /// The device is registered, and is not unregistered during `'a`, unless by this value.
    pub(crate) unsafe fn from_raw(device: *mut bindings::vfio_device) -> Self {
        // INVARIANT: By this function's contract.
        // SAFETY: A registered device is valid.
        Self(unsafe { Device::from_raw(device) })
    }

    /// Changes the device's group from that of `from` to that of `to`.
    pub(crate) fn change_group(&self, from: &IdleGroup, to: &IdleGroup, groups: &mut GroupsGuard) {
        if self.is_in(from.group()) {
            // SAFETY: The device is in a group without users, so it is not open.
            drop(unsafe { self.exchange_group(Some(to.group().clone()), groups) });
        }
    }

    /// Prevents new opens, removes the device from sysfs, and waits until it has no users.
    pub(crate) fn unregister(self) -> Joined<'a> {
        let group = registry::unlist_device(self.0);
        cdev::remove(self.index());
        #[cfg(CONFIG_VFIO_DEBUGFS)]
        self.hide_debugfs();
        // SAFETY: By the type invariant the device is in sysfs.
        unsafe { self.del() };
        self.end_registration(group.as_deref());
        // INVARIANT: The registration has ended.
        Joined(Unregistered(self.0))
    }
}

impl Device {
    /// Starts counting the device's users. The registration itself is the first user.
    fn start_registration(&self) {
        // SAFETY: Only this module uses the field, and no thread waits for it yet.
        unsafe { bindings::init_completion(&raw mut (*self.as_ptr()).comp) };
        self.users().store(1, Ordering::Release);
    }

    fn users(&self) -> &AtomicI32 {
        // SAFETY: A `refcount_t` is an `int` that C code changes atomically, and only this module
        // uses this one.
        unsafe { &*(&raw mut (*self.as_ptr()).refcount).cast() }
    }

    /// Takes a reference that keeps the device registered. Returns `None` if the registration has
    /// ended or if there are too many users.
    pub(crate) fn try_get_registration(&self) -> Option<RegistrationRef> {
        let one_more = |users: i32| users.checked_add(1).filter(|_| users > 0);
        self.users()
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .is_ok()
            // INVARIANT: This user was counted above.
            .then(|| RegistrationRef(NonNull::from(self)))
    }

    /// Ends the registration and waits until the last user is gone. Meanwhile asks the driver
    /// repeatedly to release the device, and logs the device's holder if `group` knows it.
    fn end_registration(&self, group: Option<&Group>) {
        // SAFETY: This drops the count that the registration itself holds.
        unsafe { put(NonNull::from(self)) };
        // SAFETY: `start_registration` initialised the completion.
        let comp = unsafe { &raw mut (*self.as_ptr()).comp };
        let mut interrupted = false;
        let mut requests = 0u32;
        // SAFETY: As above.
        if unsafe { bindings::try_wait_for_completion(comp) } {
            return;
        }
        loop {
            if let Some(request) = self.ops().request {
                // SAFETY: The device is still bound to its driver.
                unsafe { request(self.as_ptr(), requests) };
            }
            requests = requests.wrapping_add(1);
            // SAFETY: As above.
            let left = unsafe { wait(comp, interrupted) };
            if left > 0 {
                return;
            }
            if left == 0 && requests.is_power_of_two() {
                if let Some(group) = group {
                    group.warn_holder(self);
                }
            }
            if left < 0 {
                interrupted = true;
                let waiter = TaskLabel::current();
                dev_warn!(
                    self.parent(),
                    "Device is currently in use, task \"{}\" ({}) blocked until device is released\n",
                    waiter.name(),
                    waiter.pid()
                );
            }
        }
    }
}

/// Drops a reference from [`Device::try_get_registration`], or that of the registration itself.
///
/// The last drop allows `vfio_unregister_group_dev()` to return. The driver may then free the
/// device and unload its module, so this function does not touch the device after that.
///
/// # Safety
///
/// The caller owns one count, and does not use the device through that count afterwards.
pub(crate) unsafe fn put(device: NonNull<Device>) {
    // SAFETY: The caller's count keeps the device registered, so the device is valid.
    let last = unsafe { device.as_ref() }
        .users()
        .fetch_sub(1, Ordering::AcqRel)
        == 1;
    if last {
        let device: *mut bindings::vfio_device = device.cast().as_ptr();
        // SAFETY: `start_registration` initialised the completion. The thread that unregisters the
        // device waits for it, so the device is valid until `complete` has released the
        // completion's lock.
        unsafe { bindings::complete(&raw mut (*device).comp) };
    }
}

/// Waits for `comp` for at most one interval. Returns a positive value if it completed, zero on a
/// timeout, and a negative value if a signal interrupted the wait.
///
/// # Safety
///
/// `comp` is valid.
unsafe fn wait(comp: *mut bindings::completion, interrupted: bool) -> isize {
    let interval = msecs_to_jiffies(REQUEST_INTERVAL);
    if interrupted {
        // SAFETY: By this function's contract.
        unsafe { bindings::wait_for_completion_timeout(comp, interval) as isize }
    } else {
        // SAFETY: By this function's contract.
        unsafe { bindings::wait_for_completion_interruptible_timeout(comp, interval) }
    }
}

/// A reference that keeps a device registered. Unregistering the device waits for it.
///
/// It does not hold a reference to the `struct device`. The driver holds one while the device is
/// registered. If this type held another, that one could be the last, and dropping it would call
/// the driver after its module is gone.
///
/// # Invariants
///
/// Holds one count of the registration's users, so the device is valid.
pub(crate) struct RegistrationRef(NonNull<Device>);

// SAFETY: A `Device` may be used from any task, and the count is not tied to a task.
unsafe impl Send for RegistrationRef {}
// SAFETY: As above.
unsafe impl Sync for RegistrationRef {}

impl Deref for RegistrationRef {
    type Target = Device;

    fn deref(&self) -> &Device {
        // SAFETY: By the type invariant.
        unsafe { self.0.as_ref() }
    }
}

impl RegistrationRef {
    /// Returns the driver that is bound to the parent, which stays bound while this value exists:
    /// unbinding waits for the registration to end.
    fn driver(&self) -> Option<NonNull<bindings::device_driver>> {
        // SAFETY: The parent of a registered device is valid.
        NonNull::new(unsafe { (*(*self.as_ptr()).dev).driver })
    }

    /// Pins the module of the driver that is bound to the parent. Returns `None` if no driver is
    /// bound or the module is being unloaded.
    pub(crate) fn driver_module(&self) -> Option<ModuleRef> {
        // SAFETY: The driver is bound, so it is valid.
        unsafe { ModuleRef::try_get((*self.driver()?.as_ptr()).owner) }
    }

    /// Transfers the count to a C caller, which drops it by `vfio_device_put_registration()`.
    pub(crate) fn into_count(self) {
        let _count = ManuallyDrop::new(self);
    }
}

impl Drop for RegistrationRef {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this value owns a count. It does not use the device
        // afterwards.
        unsafe { put(self.0) };
    }
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(vfio_core_registration)]
mod tests {
    use kernel::{
        faux,
        sync::aref::ARef, //
    };

    use super::*;
    use crate::device::alloc;

    /// A driver without callbacks.
    const OPS: &bindings::vfio_device_ops = &pin_init::zeroed();

    /// Creates a device of `parent` and starts its registration.
    fn registered(parent: &faux::Registration) -> Result<ARef<Device>> {
        const SIZE: usize = core::mem::size_of::<bindings::vfio_device>();
        let parent: &kernel::device::Device = parent.as_ref().as_ref();
        // CAST: `Device` is a transparent wrapper.
        let parent = core::ptr::from_ref(parent).cast_mut().cast();
        // SAFETY: The tests keep the parent for longer than the device.
        let device = unsafe { alloc(SIZE, parent, OPS) }?;
        // SAFETY: `alloc` created one reference, which this function owns.
        let device = unsafe { ARef::from_raw(device.cast::<Device>()) };
        device.start_registration();
        Ok(device)
    }

    /// Returns the number of references to the `struct device`.
    fn references(device: &Device) -> i32 {
        // SAFETY: The device is valid, and nothing else uses it.
        unsafe { (*device.as_ptr()).device.kobj.kref.refcount.refs.counter }
    }

    /// Users hold no reference to the `struct device`, so the driver drops the last one, while its
    /// module is still loaded.
    #[test]
    fn user_has_no_reference() -> Result {
        let parent = faux::Registration::new(c"vfio_core_registration", None)?;
        let device = registered(&parent)?;
        let before = references(&device);
        let user = device.try_get_registration().ok_or(EINVAL)?;
        let file = device.try_get_registration().ok_or(EINVAL)?;
        assert_eq!(references(&device), before);
        assert_eq!(device.users().load(Ordering::Relaxed), 3);
        drop(user);
        drop(file);
        assert_eq!(references(&device), before);
        device.end_registration(None);
        assert!(device.try_get_registration().is_none());
        assert_eq!(references(&device), before);
        Ok(())
    }

    #[test]
    fn users_are_limited() -> Result {
        let parent = faux::Registration::new(c"vfio_core_registration", None)?;
        let device = registered(&parent)?;
        device.users().store(i32::MAX, Ordering::Relaxed);
        assert!(device.try_get_registration().is_none());
        device.users().store(1, Ordering::Relaxed);
        device.end_registration(None);
        Ok(())
    }
}
