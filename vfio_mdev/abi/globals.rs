// SPDX-License-Identifier: GPL-2.0

//! The crate's global tables, each with its lock.
//!
//! `Documentation/locking.rst` has their order.

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

/// Initialises the locks. Called once, before anything else, by module init.
pub(crate) fn init() {
    // SAFETY: Module init runs once, and nothing of this module can be called before its end.
    unsafe {
        REGISTRY.init();
        PEERS.init();
    }
}
