// SPDX-License-Identifier: GPL-2.0

//! The members of a peer-to-peer group, typed for their driver.

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

/// A pointer to the instance of a peer, without its type.
///
/// # Invariants
///
/// Points at an instance of the driver that created it. The instance exists as long as the peer is
/// in a group.
#[derive(Clone, Copy)]
pub(crate) struct Erased(NonNull<c_void>);

// SAFETY: Any thread may use an instance.
unsafe impl Send for Erased {}
// SAFETY: As above.
unsafe impl Sync for Erased {}

impl Erased {
    /// Erases the type of `instance`.
    pub(super) fn new<D: Device>(instance: &Instance<D>) -> Self {
        Self(NonNull::from(instance).cast())
    }

    /// # Safety
    ///
    /// The value was created from an `Instance<D>`, which exists for all of `'a`.
    pub(super) unsafe fn instance<'a, D: Device>(self) -> &'a Instance<D> {
        // SAFETY: By this function's contract.
        unsafe { self.0.cast().as_ref() }
    }
}

/// The members of a peer-to-peer group.
///
/// # Invariants
///
/// The peers belong to the driver of `D`, and stay in their group for all of `'a`.
pub struct Members<'a, D: Device> {
    peers: &'a [Arc<Peer>],
    alone: Option<&'a Instance<D>>,
    _type: PhantomData<D>,
}

impl<'a, D: Device> Members<'a, D> {
    /// # Safety
    ///
    /// The peers belong to the driver of `D`, and stay in their group for all of `'a`.
    pub(super) unsafe fn new(peers: &'a [Arc<Peer>]) -> Self {
        // INVARIANT: By this function's contract.
        Self {
            peers,
            alone: None,
            _type: PhantomData,
        }
    }

    /// The only member, a device of a type without peers.
    pub(super) fn alone(instance: &'a Instance<D>) -> Self {
        // INVARIANT: `peers` is empty.
        Self {
            peers: &[],
            alone: Some(instance),
            _type: PhantomData,
        }
    }

    /// Iterates over the members in the order in which they joined.
    pub fn iter(&self) -> impl Iterator<Item = &Instance<D>> + use<'_, 'a, D> {
        let instance = |peer: &'a Arc<Peer>| {
            // SAFETY: By the type invariants of `Members` and `Erased`.
            unsafe { peer.instance().instance() }
        };
        self.alone
            .into_iter()
            .chain(self.peers.iter().map(instance))
    }

    /// Returns the member with a UUID.
    pub fn find(&self, uuid: Uuid) -> Option<&Instance<D>> {
        self.iter().find(|member| member.uuid() == uuid)
    }

    /// Whether all members have the same parent as `device`.
    pub fn are_siblings_of(&self, device: &Instance<D>) -> bool {
        self.iter()
            .all(|member| Arc::ptr_eq(member.parent(), device.parent()))
    }

    /// Returns the number of members.
    #[expect(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.iter().count()
    }
}
