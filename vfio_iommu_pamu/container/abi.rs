// SPDX-License-Identifier: GPL-2.0

//! The memory that the windows of a container lead to, and the table that maps LIODNs to
//! containers.

use kernel::{
    prelude::*,
    sync::{
        global_lock,
        Arc, //
    }, //
};

use crate::{
    liodn::MappedBlock,
    memory::PinnedBlock,
    paace::Access,
    windows::{
        Target,
        Window, //
    },
};

use super::{
    Container,
    Devices, //
};

/// Returns the block to set in a LIODN for the content of a window. The LIODN is one of `devices`,
/// and the [`AddressSpace`] of `devices` holds the content.
///
/// [`AddressSpace`]: crate::windows::AddressSpace
pub(super) fn block_of(_devices: &Devices, content: &Window<PinnedBlock>) -> MappedBlock {
    let access = Access::from(content.prot);
    match &content.target {
        Target::Bank { bank, .. } => MappedBlock::of_bank(*bank, access),
        Target::Memory(memory) => {
            let permitted = if memory.is_write() {
                access
            } else {
                access.without_update()
            };
            // SAFETY: The block is pinned, for writing if the device may write. It stays pinned
            // until the content is dropped. By the type invariant of `Devices` that is after the
            // window was cleared for all LIODNs.
            unsafe { MappedBlock::new(memory.phys(), memory.bytes(), permitted) }
        }
    }
}

global_lock! {
    /// The container of each LIODN that is in one. The lock nests inside a container's mutex.
    unsafe(uninit) static CONTAINERS: Mutex<KVec<(u32, Arc<Container>)>> = KVec::new();
}

/// Initializes the table.
///
/// # Safety
///
/// Neither this function nor any other function of the table was called before.
pub(crate) unsafe fn init_lock() {
    // SAFETY: By the contract of this function.
    unsafe { CONTAINERS.init() };
}

/// Adds a LIODN that joins a container to the table.
///
/// # Errors
///
/// `ENOMEM`.
pub(super) fn set_container(liodn: u32, container: Arc<Container>) -> Result {
    CONTAINERS
        .lock()
        .push((liodn, container), GFP_KERNEL_ACCOUNT)?;
    Ok(())
}

/// Removes a LIODN that leaves `container` from the table. Does nothing if the LIODN isn't in this
/// container. The caller holds a reference to the container, so the container isn't dropped here.
pub(super) fn clear_container(liodn: u32, container: &Container) {
    let mut containers = CONTAINERS.lock();
    containers.retain(|(listed, of)| *listed != liodn || !core::ptr::eq(&**of, container));
    // Statics are not dropped when the module is unloaded, so free the memory here.
    if containers.is_empty() {
        *containers = KVec::new();
    }
}

/// Returns the container that a LIODN is in.
pub(crate) fn container_of(liodn: u32) -> Option<Arc<Container>> {
    let containers = CONTAINERS.lock();
    let (_, container) = containers.iter().find(|(listed, _)| *listed == liodn)?;
    Some(container.clone())
}
