// SPDX-License-Identifier: GPL-2.0

//! The list of containers and its lock.

use kernel::{
    prelude::*,
    sync::{
        global_lock,
        Arc, //
    },
};

use crate::container::Container;

global_lock! {
    // SAFETY: `init` initialises it before the module can be used.
    pub(super) unsafe(uninit) static CONTAINERS: Mutex<KVec<Arc<Container>>> = KVec::new();
}

/// Initialises the lock. Module init calls this once, before anything else.
pub(crate) fn init() {
    // SAFETY: Module init runs once, and no other function of this module can be called before it
    // ends.
    unsafe { CONTAINERS.init() };
}
