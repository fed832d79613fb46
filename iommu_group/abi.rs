// SPDX-License-Identifier: GPL-2.0

//! The global lock of this crate, which is its only unsafe code.

use kernel::{
    prelude::*,
    sync::global_lock, //
};

use crate::software::Regroup;

global_lock! {
    // SAFETY: `init` initialises it before the module can be used.
    pub(crate) unsafe(uninit) static REGROUPER: Mutex<Option<&'static dyn Regroup>> = None;
}

/// Initialises the lock. Module init calls this once, before anything else.
pub(crate) fn init() {
    // SAFETY: Module init runs once, and no other function of this module can be called before it
    // ends.
    unsafe { REGROUPER.init() };
}
