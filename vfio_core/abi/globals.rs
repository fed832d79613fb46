// SPDX-License-Identifier: GPL-2.0

//! The global tables of the crate, each with its own lock.
//!
//! For the order of the locks see `Documentation/locking.rst`.

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
    // SAFETY: `init` initialises it before the module can be used.
    pub(crate) unsafe(uninit) static DRIVERS: Mutex<KVec<Registered>> = KVec::new();
}

global_lock! {
    // SAFETY: `init` initialises it before the module can be used.
    pub(crate) unsafe(uninit) static GROUPS: Mutex<Registry> = Registry::new();
}

global_lock! {
    // SAFETY: `init` initialises it before the module can be used.
    pub(crate) unsafe(uninit) static DEVICE_NUMBERS: Mutex<Numbers> = Numbers::new();
}

global_lock! {
    // SAFETY: `init` initialises it before the module can be used.
    pub(super) unsafe(uninit) static DEVICE_SETS: Mutex<Sets> = Sets::new();
}

global_lock! {
    // SAFETY: `init` initialises it before the module can be used.
    pub(super) unsafe(uninit) static VIRQFDS: SpinLockIrq<Queue> = Queue::none();
}

/// Initialises the locks. Module init calls this once, before anything else.
pub(crate) fn init() {
    // SAFETY: Module init runs once, and no other code can call this module before it ends.
    unsafe {
        DRIVERS.init();
        GROUPS.init();
        DEVICE_NUMBERS.init();
        DEVICE_SETS.init();
        VIRQFDS.init();
    }
}
