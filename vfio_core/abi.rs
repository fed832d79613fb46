// SPDX-License-Identifier: GPL-2.0

//! The entry point of the module, which initialises the global locks.

use kernel::{
    prelude::*,
    InPlaceModule, //
};

use crate::{
    device,
    group,
    iommu_driver,
    virqfd,
    Vfio, //
};

impl InPlaceModule for Vfio {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // SAFETY: The kernel calls this once, before any other function of the module.
        unsafe { init_locks() };
        Vfio::new()
    }
}

/// Initialises the global locks.
///
/// # Safety
///
/// Module init calls this once, before any other function of this module.
unsafe fn init_locks() {
    // SAFETY: By this function's contract.
    unsafe { device::init_locks() };
    // SAFETY: As above.
    unsafe { device::set::init_lock() };
    // SAFETY: As above.
    unsafe { group::init_locks() };
    // SAFETY: As above.
    unsafe { iommu_driver::init_lock() };
    // SAFETY: As above.
    unsafe { virqfd::init_lock() };
}
