// SPDX-License-Identifier: GPL-2.0

//! `struct mdev_parent`: a parent that a driver registers.

use kernel::{
    bindings::{
        kobject_action_KOBJ_CHANGE as KOBJ_CHANGE, //
    },
    device::Device,
    ffi::{
        c_int,
        c_void, //
    },
    prelude::*,
    static_lock_class,
    types::{
        NotThreadSafe,
        Opaque, //
    }, //
};
use kernel_ext::bindings;

use super::Type;
use crate::{
    bus::{
        self,
        ParentKey, //
    },
    device::Mdev, //
};

/// A registered parent.
///
/// # Invariants
///
/// [`register`] was called for it, and [`unregister`] was not: its device, driver and types are set
/// and valid.
#[repr(transparent)]
pub(crate) struct Parent(Opaque<bindings::mdev_parent>);

impl Parent {
    /// # Safety
    ///
    /// `parent` is registered for all of `'a`.
    pub(crate) unsafe fn from_raw<'a>(parent: *mut bindings::mdev_parent) -> &'a Self {
        // SAFETY: By this function's contract. `Parent` is a transparent wrapper of the structure.
        unsafe { &*parent.cast() }
    }

    fn as_ptr(&self) -> *mut bindings::mdev_parent {
        self.0.get()
    }

    /// Returns the device that the parent was registered for.
    pub(crate) fn raw_device(&self) -> *mut bindings::device {
        // SAFETY: By the type invariant.
        unsafe { (*self.as_ptr()).dev }
    }

    pub(super) fn device(&self) -> &Device {
        // SAFETY: By the type invariant. The driver keeps its device while the parent is
        // registered.
        unsafe { Device::from_raw(self.raw_device()) }
    }

    /// Returns the driver that the parent's devices are bound to.
    pub(crate) fn driver(&self) -> &bindings::mdev_driver {
        // SAFETY: By the type invariant. A driver outlives its parents.
        unsafe { &*(*self.as_ptr()).mdev_driver }
    }

    /// Returns the parent's key in the registry.
    pub(crate) fn key(&self) -> ParentKey {
        ParentKey(self.as_ptr() as usize)
    }

    /// Returns the directory of the types.
    pub(super) fn types_kset(&self) -> *mut bindings::kset {
        // SAFETY: By the type invariant.
        unsafe { (*self.as_ptr()).mdev_types_kset }
    }

    pub(super) fn types(&self) -> &[*mut bindings::mdev_type] {
        // SAFETY: By the type invariant. The driver passed a table of `nr_types` entries.
        unsafe {
            let (types, count) = ((*self.as_ptr()).types, (*self.as_ptr()).nr_types);
            if count == 0 {
                return &[];
            }
            core::slice::from_raw_parts(types, count as usize)
        }
    }

    /// Prevents the parent from being unregistered. Returns `None` if it is being registered or
    /// unregistered.
    pub(crate) fn stay(&self) -> Option<Staying<'_>> {
        // SAFETY: By the type invariant.
        let locked = unsafe { bindings::down_read_trylock(&raw mut (*self.as_ptr()).unreg_sem) };
        // INVARIANT: The lock was just taken.
        (locked != 0).then(|| UnregGuard(self, NotThreadSafe))
    }

    /// Prevents other threads from creating and removing devices.
    pub(super) fn stop(&self) -> Stopped<'_> {
        // SAFETY: By the type invariant.
        unsafe { bindings::down_write(&raw mut (*self.as_ptr()).unreg_sem) };
        // INVARIANT: The lock was just taken.
        UnregGuard(self, NotThreadSafe)
    }

    /// Lists the parent in `/sys/class/mdev_bus`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and the errors of sysfs.
    pub(super) fn link(&self) -> Result {
        // SAFETY: The device is registered.
        unsafe { bus::link_parent(self.raw_device()) }
    }

    /// Undoes [`Parent::link`].
    pub(super) fn unlink(&self) {
        // SAFETY: The device is registered.
        unsafe { bus::unlink_parent(self.raw_device()) };
    }

    /// Sends a uevent of the parent's device with `variable` in its environment.
    pub(super) fn send_uevent(&self, variable: &'static CStr) {
        let mut environment = [variable.as_char_ptr().cast_mut(), core::ptr::null_mut()];
        // SAFETY: The device is valid, and the function only reads the strings.
        unsafe {
            bindings::kobject_uevent_env(
                &raw mut (*self.raw_device()).kobj,
                KOBJ_CHANGE,
                environment.as_mut_ptr(),
            )
        };
    }

    /// Adds the types to sysfs.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and the errors of sysfs.
    pub(super) fn add_types(&self) -> Result {
        let name = c"mdev_supported_types".as_char_ptr();
        // SAFETY: The device is registered. Without operations the directory is a plain kset.
        let kset = unsafe {
            bindings::kset_create_and_add(
                name,
                core::ptr::null(),
                &raw mut (*self.raw_device()).kobj,
            )
        };
        if kset.is_null() {
            return Err(ENOMEM);
        }
        // SAFETY: No other code uses the field before the types are added.
        unsafe { (*self.as_ptr()).mdev_types_kset = kset };
        for (i, &raw) in self.types().iter().enumerate() {
            // SAFETY: The driver's type is valid as long as the parent is registered.
            unsafe { Type::add(raw, self) }.inspect_err(|_| self.remove_types(i))?;
        }
        Ok(())
    }

    /// Removes the directories of the first `count` types and the directory that contains them.
    pub(super) fn remove_types(&self, count: usize) {
        for &raw in &self.types()[..count] {
            // SAFETY: The type was added by `add_types`.
            unsafe { Type::from_raw(raw) }.remove();
        }
        // SAFETY: `add_types` created the kset.
        unsafe { bindings::kset_unregister(self.types_kset()) };
    }
}

impl Stopped<'_> {
    /// Removes all devices of the parent.
    pub(super) fn remove_devices(&self) {
        /// # Safety
        ///
        /// `dev` is a child of the device of the parent that `stopped`, a [`Stopped`], has locked.
        unsafe extern "C" fn callback(dev: *mut bindings::device, stopped: *mut c_void) -> c_int {
            // SAFETY: By this function's contract. Visible devices of this bus were created by this
            // module.
            if unsafe { (*dev).bus } == bus::as_ptr() {
                // SAFETY: As above.
                let mdev = unsafe { Mdev::from_raw(dev.cast()) };
                // SAFETY: By this function's contract.
                drop(mdev.take(unsafe { &*stopped.cast::<Stopped<'_>>() }));
            }
            0
        }
        // SAFETY: The device is registered. The callback may remove the child that it is called
        // with.
        unsafe {
            bindings::device_for_each_child(
                self.0.raw_device(),
                core::ptr::from_ref(self).cast_mut().cast(),
                Some(callback),
            )
        };
    }
}

/// The lock `unreg_sem` of a parent, held for writing if `WRITE`. While it is held, no other thread
/// unregisters the parent.
///
/// # Invariants
///
/// This thread holds the lock.
pub(crate) struct UnregGuard<'a, const WRITE: bool>(&'a Parent, NotThreadSafe);

/// Prevents a parent from being unregistered.
pub(crate) type Staying<'a> = UnregGuard<'a, false>;

/// Prevents other threads from creating and removing a parent's devices.
pub(crate) type Stopped<'a> = UnregGuard<'a, true>;

impl<const WRITE: bool> UnregGuard<'_, WRITE> {
    /// Returns whether the lock is that of the parent of `mdev`.
    pub(crate) fn is_of_parent(&self, mdev: &Mdev) -> bool {
        // SAFETY: The device is initialised. Only addresses are compared.
        unsafe { (*mdev.raw_device()).parent == self.0.raw_device() }
    }
}

impl<const WRITE: bool> Drop for UnregGuard<'_, WRITE> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe {
            let lock = &raw mut (*self.0.as_ptr()).unreg_sem;
            if WRITE {
                bindings::up_write(lock);
            } else {
                bindings::up_read(lock);
            }
        }
    }
}

/// Registers a parent. The memory at `parent` may be uninitialised.
///
/// # Errors
///
/// `ENOMEM`, and the errors of sysfs.
///
/// # Safety
///
/// The caller owns the memory at `parent`. `dev` is registered. `driver` and the `count` `types`
/// are set up. All of them stay valid until [`unregister`].
pub(crate) unsafe fn register(
    parent: *mut bindings::mdev_parent,
    dev: *mut bindings::device,
    driver: *mut bindings::mdev_driver,
    types: *mut *mut bindings::mdev_type,
    count: u32,
) -> Result {
    // SAFETY: By this function's contract.
    let max_instances = unsafe {
        parent.write(bindings::mdev_parent {
            dev,
            mdev_driver: driver,
            types,
            nr_types: count,
            ..pin_init::zeroed()
        });
        bindings::__init_rwsem(
            &raw mut (*parent).unreg_sem,
            c"&parent->unreg_sem".as_char_ptr(),
            static_lock_class!().as_ptr(),
        );
        (*driver).max_instances
    };
    // SAFETY: All fields are set.
    // INVARIANT: Only functions called from here see the parent before it is registered.
    unsafe { Parent::from_raw(parent) }.publish(max_instances)
}

/// Removes all devices of a parent, waits until they have no users, and unregisters the parent.
///
/// # Safety
///
/// [`register`] has registered `parent`.
pub(crate) unsafe fn unregister(parent: *mut bindings::mdev_parent) {
    // SAFETY: By this function's contract.
    unsafe { Parent::from_raw(parent) }.unpublish();
}
