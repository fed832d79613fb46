// SPDX-License-Identifier: GPL-2.0

//! The crate's global tables, each with its lock.
//!
//! `Documentation/locking.rst` has their order.

use kernel::{
    prelude::*,
    sync::global_lock, //
};

use super::{
    device_set::Sets,
    iommu_driver::Registered,
    virqfd::Queue, //
};
use crate::{
    group::registry::Registry,
    numbers::Numbers, //
};

global_lock! {
    // SAFETY: Initialised by `init` before the module can be used.
    pub(crate) unsafe(uninit) static DRIVERS: Mutex<KVec<Registered>> = KVec::new();
}

global_lock! {
    // SAFETY: Initialised by `init` before the module can be used.
    pub(crate) unsafe(uninit) static GROUPS: Mutex<Registry> = Registry::new();
}

global_lock! {
    // SAFETY: Initialised by `init` before the module can be used.
    pub(crate) unsafe(uninit) static DEVICE_NUMBERS: Mutex<Numbers> = Numbers::new();
}

global_lock! {
    // SAFETY: Initialised by `init` before the module can be used.
    pub(super) unsafe(uninit) static DEVICE_SETS: Mutex<Sets> = Sets::new();
}

global_lock! {
    // SAFETY: Initialised by `init` before the module can be used.
    pub(super) unsafe(uninit) static VIRQFDS: SpinLockIrq<Queue> = Queue::none();
}

/// Initialises the locks. Called once, before anything else, by module init.
pub(crate) fn init() {
    // SAFETY: Module init runs once, and nothing of this module can be called before its end.
    unsafe {
        DRIVERS.init();
        GROUPS.init();
        DEVICE_NUMBERS.init();
        DEVICE_SETS.init();
        VIRQFDS.init();
    }
}
