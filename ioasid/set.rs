// SPDX-License-Identifier: GPL-2.0

//! Sets: who owns ids, and how many they may be.

use kernel::prelude::*;

use kernel_ext::{
    gfp::Gfp,
    value_map::ValueMap, //
};

use crate::{
    account::Account,
    complain::complain,
    key::Key,
    life::Right,
    pasid::{
        Pasid,
        Reference, //
    },
    range::IdRange,
    set_id::SetId,
    space::Space, //
};

/// Whom a set belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Token {
    /// Nobody in particular.
    None,
    /// A process, by the address of its `struct mm_struct`, which has to exist as long as the set. A
    /// process has one set at most.
    Mm(usize),
    /// Whatever the set's creator means by it.
    Private(usize),
}

impl Token {
    /// The token's kind and value, as debugfs shows them.
    pub(crate) fn parts(self) -> (&'static str, usize) {
        match self {
            Self::None => ("none", 0),
            Self::Mm(mm) => ("mm", mm),
            Self::Private(value) => ("private", value),
        }
    }
}

/// How many ids a set may have at the same time. They are promised to no other set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// All that no other set was promised.
    Rest,
    /// So many, at least one.
    Exactly(u32),
}

/// What is known of a set.
#[pin_data]
pub(crate) struct SetState {
    pub(crate) account: Account,
    pub(crate) token: Token,
    /// Tells the set from those that had its number before.
    pub(crate) generation: u32,
    /// What the set's owner calls its ids.
    #[pin]
    pub(crate) spids: ValueMap,
}

impl SetState {
    pub(crate) fn new(token: Token, quota: u32, generation: u32) -> impl PinInit<Self> {
        pin_init!(Self {
            account: Account::new(quota),
            token,
            generation,
            spids <- ValueMap::new(),
        })
    }
}

/// A set of ids with a quota.
///
/// When this is dropped nobody allocates from the set any more; its quota goes back to the space when
/// its last id is gone.
pub struct Set<'s> {
    space: &'s Space,
    id: SetId,
}

impl<'s> Set<'s> {
    /// Takes over one handle of the set.
    pub(crate) fn from_handle(space: &'s Space, id: SetId) -> Self {
        Self { space, id }
    }

    /// Gives up the ownership of the handle, which [`from_handle`](Self::from_handle) takes again.
    pub(crate) fn into_handle(self) -> SetId {
        core::mem::ManuallyDrop::new(self).id
    }

    /// The set's name, for callers without a handle.
    pub fn id(&self) -> SetId {
        self.id
    }

    /// Allocates an id of `range` with private `data`.
    ///
    /// In atomic context `gfp` must be [`Gfp::Atomic`].
    ///
    /// # Errors
    ///
    /// `EDQUOT` if the quota is used up; else those of [`Space::alloc`].
    pub fn alloc(&self, range: IdRange, data: usize, gfp: Gfp) -> Result<Pasid<'s>> {
        let key = self
            .space
            .alloc_in(self.id, range, data, gfp, Right::Owner)?;
        Ok(Pasid::from_allocation(self.space, key))
    }

    /// The key of the id with this number, if it is in this set.
    pub fn key(&self, id: u32) -> Key {
        Key::new(Some(self.id), id)
    }

    /// Takes a reference to the id which the owner calls `spid`.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is none; `EBUSY` if it is freed.
    pub fn find_by_spid(&self, spid: u32) -> Result<Reference<'s>> {
        self.space.get_by_spid(self.id, spid)
    }

    /// How many ids the set may have.
    ///
    /// # Errors
    ///
    /// `EINVAL` if this handle was dropped by the set's name.
    pub fn quota(&self) -> Result<u32> {
        self.space
            .with_set(self.id, |state| Ok(state.account.quota()))
    }

    /// How many ids the set has.
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
            complain(c"put set", self.id.number(), e);
        }
    }
}
