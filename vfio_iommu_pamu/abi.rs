// SPDX-License-Identifier: GPL-2.0

//! The entry point of the module, which initializes the global locks.

use kernel::{
    prelude::*,
    InPlaceModule, //
};

use crate::{
    container,
    iommu,
    platform_driver,
    system,
    Module, //
};

impl InPlaceModule for Module {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // SAFETY: The kernel calls this once, before any other function of the module.
        unsafe { init_locks() };
        Module::new(module)
    }
}

/// Initializes the locks.
///
/// # Safety
///
/// No function of this module was called before, except for the module's init function.
unsafe fn init_locks() {
    // SAFETY: By the contract of this function.
    unsafe { system::init_lock() };
    // SAFETY: As above.
    unsafe { iommu::init_lock() };
    // SAFETY: As above.
    unsafe { platform_driver::init_lock() };
    // SAFETY: As above.
    unsafe { container::init_lock() };
    #[cfg(CONFIG_PPC)]
    // SAFETY: As above.
    unsafe {
        crate::msi::controller::init_lock()
    };
}
