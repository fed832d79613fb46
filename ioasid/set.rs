// SPDX-License-Identifier: GPL-2.0

//! Sets: owners of ids, with quotas.

#[allow(unsafe_code)]
pub(crate) mod abi;
pub(crate) mod account;
pub(crate) mod identity;
mod lifecycle;

use kernel::prelude::*;

pub use identity::{
    SetId,
    Token, //
};

use crate::{
    gfp::Gfp,
    id::{
        handle::{
            Pasid,
            Reference, //
        },
        key::Key,
        range::IdRange,
        state::Right, //
    },
    space::Space,
    spid::abi::SpidMap,
    warn_failed, //
};

use account::Account;

/// The maximum number of ids that a set may have at the same time. They are reserved for the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// All ids that are not reserved for another set.
    Rest,
    /// This many ids, at least one.
    Exactly(u32),
}

/// The data of a set.
#[pin_data]
pub(crate) struct SetState {
    pub(crate) account: Account,
    pub(crate) token: Token,
    /// Distinguishes the set from earlier sets with the same number.
    pub(crate) generation: u32,
    /// The ids by the owner's numbers for them (SPIDs).
    #[pin]
    pub(crate) spids: SpidMap,
}

impl SetState {
    pub(crate) fn new(token: Token, quota: u32, generation: u32) -> impl PinInit<Self> {
        pin_init!(Self {
            account: Account::new(quota),
            token,
            generation,
            spids <- SpidMap::new(),
        })
    }
}

/// A handle of a set of ids with a quota.
///
/// When the last handle of a set is dropped, no more ids can be allocated from the set. Its quota
/// is returned to the space when its last id is gone.
pub struct Set<'s> {
    space: &'s Space,
    id: SetId,
}

impl<'s> Set<'s> {
    /// Takes ownership of one handle of the set.
    pub(crate) fn from_handle(space: &'s Space, id: SetId) -> Self {
        Self { space, id }
    }

    /// Releases the ownership of the handle, which [`from_handle`](Self::from_handle) takes again.
    pub(crate) fn into_handle(self) -> SetId {
        core::mem::ManuallyDrop::new(self).id
    }

    /// Returns the set's id, for callers without a handle.
    pub fn id(&self) -> SetId {
        self.id
    }

    /// Allocates an id in `range` with private `data`.
    ///
    /// In atomic context `gfp` must be [`Gfp::Atomic`].
    ///
    /// # Errors
    ///
    /// `EDQUOT` if the quota is used up; otherwise those of [`Space::alloc`].
    pub fn alloc(&self, range: IdRange, data: usize, gfp: Gfp) -> Result<Pasid<'s>> {
        let key = self
            .space
            .alloc_in(self.id, range, data, gfp, Right::Owner)?;
        Ok(Pasid::from_allocation(self.space, key))
    }

    /// Returns the key of the id with this number, if it is in this set.
    pub fn key(&self, id: u32) -> Key {
        Key::new(Some(self.id), id)
    }

    /// Takes a reference to the id for which the owner uses `spid`.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such id; `EBUSY` if it has been freed.
    pub fn find_by_spid(&self, spid: u32) -> Result<Reference<'s>> {
        self.space.get_by_spid(self.id, spid)
    }

    /// Returns the maximum number of ids in the set.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the set has been freed by its id.
    pub fn quota(&self) -> Result<u32> {
        self.space
            .with_set(self.id, |state| Ok(state.account.quota()))
    }

    /// Returns the number of ids in the set.
    ///
    /// # Errors
    ///
    /// Those of [`quota`](Self::quota).
    pub fn used(&self) -> Result<u32> {
        self.space
            .with_set(self.id, |state| Ok(state.account.taken()))
    }
}

impl Drop for Set<'_> {
    fn drop(&mut self) {
        if let Err(e) = self.space.put_set(self.id) {
            warn_failed(fmt!("drop a handle of set {}", self.id.number()), e);
        }
    }
}
