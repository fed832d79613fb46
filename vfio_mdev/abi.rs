// SPDX-License-Identifier: GPL-2.0

//! The entry point of the module, which initialises the global locks.

use kernel::prelude::*;

use crate::{
    bus,
    peers,
    Mdev, //
};

impl kernel::Module for Mdev {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        // SAFETY: The kernel calls this once, before any other function of the module.
        unsafe { init_locks() };
        Mdev::new()
    }
}

/// Initialises the global locks.
///
/// # Safety
///
/// Module init calls this once, before any other function of this module.
unsafe fn init_locks() {
    // SAFETY: By this function's contract.
    unsafe { bus::init_lock() };
    // SAFETY: As above.
    unsafe { peers::init_lock() };
}
