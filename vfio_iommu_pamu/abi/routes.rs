// SPDX-License-Identifier: GPL-2.0

//! Which container a LIODN is in.

use kernel::{
    prelude::*,
    sync::{
        global_lock,
        Arc, //
    }, //
};

use crate::container::Container;

global_lock! {
    /// All LIODNs that are in a container. Taken inside of a container's mutex.
    unsafe(uninit) static ROUTES: Mutex<KVec<(u32, Arc<Container>)>> = KVec::new();
}

/// Makes the lock usable. Called once, by [`init_globals`](super::init_globals).
///
/// # Safety
///
/// Nobody has called it or anything else here before.
pub(super) unsafe fn init() {
    // SAFETY: By the contract of this function.
    unsafe { ROUTES.init() };
}

/// Takes note of a LIODN that joins a container.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn add(liodn: u32, container: Arc<Container>) -> Result {
    ROUTES.lock().push((liodn, container), GFP_KERNEL_ACCOUNT)?;
    Ok(())
}

/// Forgets a LIODN that leaves its container. The caller has a reference to the container, which so
/// isn't dropped here.
pub(crate) fn remove(liodn: u32) {
    let mut routes = ROUTES.lock();
    routes.retain(|(listed, _)| *listed != liodn);
    // Nobody drops a static when the module goes.
    if routes.is_empty() {
        *routes = KVec::new();
    }
}

/// The container that a LIODN is in.
pub(crate) fn container_of(liodn: u32) -> Option<Arc<Container>> {
    let routes = ROUTES.lock();
    let (_, container) = routes.iter().find(|(listed, _)| *listed == liodn)?;
    Some(container.clone())
}
