// SPDX-License-Identifier: GPL-2.0

//! The list of containers, with its lock.

use kernel::{
    prelude::*,
    sync::{
        global_lock,
        Arc, //
    },
};

use crate::container::Container;

global_lock! {
    // SAFETY: Initialised by `init` before the module can be used.
    pub(crate) unsafe(uninit) static CONTAINERS: Mutex<KVec<Arc<Container>>> = KVec::new();
}

/// Initialises the lock. Called once, before anything else, by module init.
pub(crate) fn init() {
    // SAFETY: Module init runs once, and nothing of this module can be called before its end.
    unsafe { CONTAINERS.init() };
}
