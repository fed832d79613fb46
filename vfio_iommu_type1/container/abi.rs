// SPDX-License-Identifier: GPL-2.0

//! The list of containers, for debugfs.

use kernel::{
    prelude::*,
    sync::{
        global_lock,
        Arc, //
    },
};

use super::Container;

global_lock! {
    // SAFETY: `init_lock` initialises it before the module can be used.
    /// All containers.
    pub(crate) unsafe(uninit) static CONTAINERS: Mutex<KVec<Arc<Container>>> = KVec::new();
}

/// Initialises the lock of the list.
///
/// # Safety
///
/// Module init calls this once, before any other function of this module.
pub(crate) unsafe fn init_lock() {
    // SAFETY: By this function's contract.
    unsafe { CONTAINERS.init() };
}

/// Adds a container to the list.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn add_to_list(container: &Arc<Container>) -> Result {
    let mut containers = CONTAINERS.lock();
    // Not charged: the array grows for the containers of other users, too.
    containers.push(container.clone(), GFP_KERNEL)?;
    Ok(())
}

/// Removes a container from the list when it is released.
pub(crate) fn remove_from_list(container: &Arc<Container>) {
    let mut containers = CONTAINERS.lock();
    containers.retain(|other| !Arc::ptr_eq(other, container));
    // Free the memory of the empty list: statics are not dropped when the module is unloaded.
    if containers.is_empty() {
        *containers = KVec::new();
    }
}
