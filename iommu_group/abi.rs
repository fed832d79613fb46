// SPDX-License-Identifier: GPL-2.0

//! The crate's global lock, and its only unsafe code.

use kernel::{
    prelude::*,
    sync::global_lock, //
};

use crate::software::Regroup;

global_lock! {
    // SAFETY: Initialised by `init` before the module can be used.
    pub(crate) unsafe(uninit) static REGROUPER: Mutex<Option<&'static dyn Regroup>> = None;
}

/// Initialises the lock. Called once, before anything else, by module init.
pub(crate) fn init() {
    // SAFETY: Module init runs once, and nothing of this module can be called before its end.
    unsafe { REGROUPER.init() };
}
