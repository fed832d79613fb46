// SPDX-License-Identifier: GPL-2.0

//! Initializes the global locks of the module.

use crate::{
    container,
    platform_driver,
    system, //
};

/// Initializes the locks. The module's init function calls this once, before anything else.
pub(crate) fn init_global_locks() {
    // SAFETY: The module's init function calls this once, before anything else.
    unsafe { system::init_lock() };
    // SAFETY: As above.
    unsafe { platform_driver::init_lock() };
    // SAFETY: As above.
    unsafe { container::init_lock() };
}
