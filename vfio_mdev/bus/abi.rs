// SPDX-License-Identifier: GPL-2.0

//! The `struct bus_type` of the bus, and the class `mdev_bus`, which lists the parents for older
//! userspace.

use core::{
    ptr::NonNull,
    sync::atomic::{
        AtomicPtr,
        Ordering, //
    }, //
};

use kernel::{
    error::to_result,
    ffi::c_int,
    prelude::*,
    sync::global_lock, //
};
use kernel_ext::bindings;

use super::Registry;
use crate::sysfs::Table;

global_lock! {
    // SAFETY: `init_lock` initialises it before the module can be used.
    pub(super) unsafe(uninit) static REGISTRY: Mutex<Registry> = Registry::new();
}

/// Initialises the lock of the registry.
///
/// # Safety
///
/// Module init calls this once, before any other function of this module.
pub(crate) unsafe fn init_lock() {
    // SAFETY: By this function's contract.
    unsafe { REGISTRY.init() };
}

/// `/sys/bus/mdev`
static BUS: Table<bindings::bus_type> = Table({
    let mut bus: bindings::bus_type = pin_init::zeroed();
    bus.name = kernel::str::as_char_ptr_in_const_context(c"mdev");
    bus.probe = Some(probe_callback);
    bus.remove = Some(remove_callback);
    bus.match_ = Some(match_callback);
    bus
});

/// Returns the bus for the `bus` field of devices and drivers.
pub(crate) fn as_ptr() -> *const bindings::bus_type {
    &raw const BUS.0
}

/// Returns the driver that a device is bound to, or being bound to.
///
/// # Safety
///
/// `dev` is a device of this bus and has a driver.
unsafe fn driver_of<'a>(dev: *mut bindings::device) -> &'a bindings::mdev_driver {
    let offset = core::mem::offset_of!(bindings::mdev_driver, driver);
    // SAFETY: By this function's contract. Drivers of this bus are embedded in a `mdev_driver`.
    unsafe { &*(*dev).driver.wrapping_byte_sub(offset).cast() }
}

/// # Safety
///
/// Called by the driver core with a device of this bus that is being bound.
unsafe extern "C" fn probe_callback(dev: *mut bindings::device) -> c_int {
    // SAFETY: By this function's contract. A mediated device begins with its `struct device`.
    unsafe { driver_of(dev).probe.map_or(0, |probe| probe(dev.cast())) }
}

/// # Safety
///
/// Called by the driver core with a device of this bus that is being unbound.
unsafe extern "C" fn remove_callback(dev: *mut bindings::device) {
    // SAFETY: As for `probe_callback`.
    if let Some(remove) = unsafe { driver_of(dev) }.remove {
        // SAFETY: As above.
        unsafe { remove(dev.cast()) }
    }
}

/// No driver matches a device automatically. A device is bound to the driver of its parent when it
/// is created.
extern "C" fn match_callback(
    _dev: *mut bindings::device,
    _driver: *const bindings::device_driver,
) -> c_int {
    0
}

/// Registers a driver with the bus.
///
/// # Errors
///
/// `EINVAL` without a `device_api`, and the errors of the driver core.
///
/// # Safety
///
/// `driver` is set up, and stays valid until it is unregistered.
pub(crate) unsafe fn register_driver(driver: *mut bindings::mdev_driver) -> Result {
    // SAFETY: By this function's contract.
    unsafe {
        if (*driver).device_api.is_null() {
            return Err(EINVAL);
        }
        (*driver).driver.bus = as_ptr();
        to_result(bindings::driver_register(&raw mut (*driver).driver))
    }
}

/// The registration of the bus.
///
/// # Invariants
///
/// The bus is registered.
pub(crate) struct BusRegistration(());

impl BusRegistration {
    /// Registers the bus.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: The bus is a static, so it outlives its registration.
        to_result(unsafe { bindings::bus_register(as_ptr()) })?;
        // INVARIANT: The bus was just registered.
        Ok(Self(()))
    }
}

impl Drop for BusRegistration {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::bus_unregister(as_ptr()) }
    }
}

/// The class for [`link_parent`] and [`unlink_parent`]. Null unless a [`CompatClass`] exists.
static COMPAT_CLASS: AtomicPtr<bindings::class_compat> = AtomicPtr::new(core::ptr::null_mut());

/// The registration of `/sys/class/mdev_bus`.
///
/// # Invariants
///
/// The class is registered, and [`COMPAT_CLASS`] points at it.
pub(crate) struct CompatClass(NonNull<bindings::class_compat>);

// SAFETY: The class is only used through functions that do their own locking.
unsafe impl Send for CompatClass {}
// SAFETY: As above.
unsafe impl Sync for CompatClass {}

impl CompatClass {
    /// Registers the class.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: The name is a C string, which the function copies.
        let class = unsafe { bindings::class_compat_register(c"mdev_bus".as_char_ptr()) };
        let class = NonNull::new(class).ok_or(ENOMEM)?;
        COMPAT_CLASS.store(class.as_ptr(), Ordering::Release);
        // INVARIANT: The class was just registered, and `COMPAT_CLASS` was set.
        Ok(Self(class))
    }
}

impl Drop for CompatClass {
    fn drop(&mut self) {
        COMPAT_CLASS.store(core::ptr::null_mut(), Ordering::Release);
        // SAFETY: By the type invariant. No parent is registered when the module is unloaded.
        unsafe { bindings::class_compat_unregister(self.0.as_ptr()) }
    }
}

/// Adds a parent to the class.
///
/// # Safety
///
/// `dev` is a registered device.
pub(crate) unsafe fn link_parent(dev: *mut bindings::device) -> Result {
    let class = COMPAT_CLASS.load(Ordering::Acquire);
    // SAFETY: By this function's contract. The class exists while this module is loaded.
    to_result(unsafe { bindings::class_compat_create_link(class, dev) })
}

/// Undoes [`link_parent`].
///
/// # Safety
///
/// `dev` is a registered device.
pub(crate) unsafe fn unlink_parent(dev: *mut bindings::device) {
    let class = COMPAT_CLASS.load(Ordering::Acquire);
    // SAFETY: As for `link_parent`.
    unsafe { bindings::class_compat_remove_link(class, dev) }
}
