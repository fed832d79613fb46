// SPDX-License-Identifier: GPL-2.0

//! Maps each LIODN to its container.

use kernel::{
    prelude::*,
    sync::{
        global_lock,
        Arc, //
    }, //
};

use crate::container::Container;

global_lock! {
    /// All LIODNs that are in a container. The lock nests inside a container's mutex.
    unsafe(uninit) static ROUTES: Mutex<KVec<(u32, Arc<Container>)>> = KVec::new();
}

/// Initializes the lock. [`init_globals`](super::init_globals) calls it once.
///
/// # Safety
///
/// Neither this function nor any other function of this module was called before.
pub(super) unsafe fn init() {
    // SAFETY: By the contract of this function.
    unsafe { ROUTES.init() };
}

/// Adds a LIODN that joins a container.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn add(liodn: u32, container: Arc<Container>) -> Result {
    ROUTES.lock().push((liodn, container), GFP_KERNEL_ACCOUNT)?;
    Ok(())
}

/// Removes a LIODN that leaves its container. The caller holds a reference to the container, so the
/// container isn't dropped here.
pub(crate) fn remove(liodn: u32) {
    let mut routes = ROUTES.lock();
    routes.retain(|(listed, _)| *listed != liodn);
    // Statics are not dropped when the module is unloaded, so free the memory here.
    if routes.is_empty() {
        *routes = KVec::new();
    }
}

/// Returns the container that a LIODN is in.
pub(crate) fn container_of(liodn: u32) -> Option<Arc<Container>> {
    let routes = ROUTES.lock();
    let (_, container) = routes.iter().find(|(listed, _)| *listed == liodn)?;
    Some(container.clone())
}
