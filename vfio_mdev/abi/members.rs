// SPDX-License-Identifier: GPL-2.0

//! The devices of a peer-to-peer group, as their driver knows them.

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};

use kernel::{
    ffi::c_void,
    sync::Arc, //
};

use super::instance::Instance;
use crate::{
    driver::Device,
    peers::Peer,
    uuid::Uuid, //
};

/// Which instance a peer is, without its type.
///
/// # Invariants
///
/// Is that of an instance of the driver that made it, which lives as long as the peer is in a group.
#[derive(Clone, Copy)]
pub(crate) struct Erased(NonNull<c_void>);

// SAFETY: Instances may be used from any task.
unsafe impl Send for Erased {}
// SAFETY: As above.
unsafe impl Sync for Erased {}

impl Erased {
    /// Forgets the type of `instance`.
    pub(super) fn new<D: Device>(instance: &Instance<D>) -> Self {
        Self(NonNull::from(instance).cast())
    }

    /// # Safety
    ///
    /// It was made of an `Instance<D>`, which lives for all of `'a`.
    pub(super) unsafe fn instance<'a, D: Device>(self) -> &'a Instance<D> {
        // SAFETY: By this function's contract.
        unsafe { self.0.cast().as_ref() }
    }
}

/// The members of a peer-to-peer group.
///
/// # Invariants
///
/// The peers are of the driver of `D`, and stay in their group for all of `'a`.
pub struct Members<'a, D: Device> {
    peers: &'a [Arc<Peer>],
    alone: Option<&'a Instance<D>>,
    _type: PhantomData<D>,
}

impl<'a, D: Device> Members<'a, D> {
    /// # Safety
    ///
    /// The peers are of the driver of `D`, and stay in their group for all of `'a`.
    pub(super) unsafe fn new(peers: &'a [Arc<Peer>]) -> Self {
        // INVARIANT: By this function's contract.
        Self {
            peers,
            alone: None,
            _type: PhantomData,
        }
    }

    /// One device of a type that has no peers.
    pub(super) fn alone(instance: &'a Instance<D>) -> Self {
        // INVARIANT: There are no peers.
        Self {
            peers: &[],
            alone: Some(instance),
            _type: PhantomData,
        }
    }

    /// The members, in the order in which they joined.
    pub fn iter(&self) -> impl Iterator<Item = &Instance<D>> + use<'_, 'a, D> {
        let instance = |peer: &'a Arc<Peer>| {
            // SAFETY: By the type invariants of `Members` and `Erased`.
            unsafe { peer.instance().instance() }
        };
        self.alone
            .into_iter()
            .chain(self.peers.iter().map(instance))
    }

    /// The member with the name `uuid`.
    pub fn find(&self, uuid: Uuid) -> Option<&Instance<D>> {
        self.iter().find(|member| member.uuid() == uuid)
    }

    /// Whether all members have the same parent as `device`.
    pub fn are_siblings_of(&self, device: &Instance<D>) -> bool {
        self.iter()
            .all(|member| Arc::ptr_eq(member.parent(), device.parent()))
    }

    /// How many members there are.
    #[expect(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.iter().count()
    }
}
