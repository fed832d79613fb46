// SPDX-License-Identifier: GPL-2.0

//! The locks of the table of groups and of their files in debugfs.

use kernel::{
    prelude::*,
    sync::{
        global_lock,
        GlobalGuard, //
    }, //
};

use super::{
    debugfs::Files,
    registry::Registry, //
};

global_lock! {
    // SAFETY: `init_locks` initialises it before the module can be used.
    pub(crate) unsafe(uninit) static GROUPS: Mutex<Registry> = Registry::new();
}

/// Proves that `GROUPS` is locked.
pub(crate) type GroupsGuard = GlobalGuard<GROUPS>;

global_lock! {
    // SAFETY: `init_locks` initialises it before the module can be used.
    pub(super) unsafe(uninit) static DEBUGFS_FILES: Mutex<Files> = Files::new();
}

/// Initialises both locks.
///
/// # Safety
///
/// Module init calls this once, before any other function of this module.
pub(crate) unsafe fn init_locks() {
    // SAFETY: By this function's contract.
    unsafe { GROUPS.init() };
    // SAFETY: As above.
    unsafe { DEBUGFS_FILES.init() };
}
