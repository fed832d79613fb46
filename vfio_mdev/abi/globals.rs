// SPDX-License-Identifier: GPL-2.0

//! The global tables of the crate, each with its lock.
//!
//! `Documentation/locking.rst` describes the lock order.

use kernel::{
    prelude::*,
    sync::global_lock, //
};

use crate::{
    peers::Peers,
    registry::Registry, //
};

global_lock! {
    // SAFETY: Initialised by `init` before the module can be used.
    pub(crate) unsafe(uninit) static REGISTRY: Mutex<Registry> = Registry::new();
}

global_lock! {
    // SAFETY: Initialised by `init` before the module can be used.
    pub(crate) unsafe(uninit) static PEERS: Mutex<Peers> = Peers::new();
}

/// Initialises the locks. Module init calls it once, before anything else.
pub(crate) fn init() {
    // SAFETY: Module init runs once, and no other function of this module can be called before it
    // ends.
    unsafe {
        REGISTRY.init();
        PEERS.init();
    }
}
