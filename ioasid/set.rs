// SPDX-License-Identifier: GPL-2.0

//! Sets: who owns ids, and how many they may be.

use core::ops::Deref;

use kernel::prelude::*;

use kernel_ext::{
    gfp::Gfp,
    value_map::ValueMap, //
};

use crate::{
    account::Account,
    pasid::{
        Pasid,
        Reference, //
    },
    range::IdRange,
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

/// The number of the set which all ids belong to that are in no other.
pub(crate) const ROOT: u32 = 0;

/// What is known of a set.
#[pin_data]
pub(crate) struct SetState {
    pub(crate) account: Account,
    pub(crate) token: Token,
    /// What the set's owner calls its ids.
    #[pin]
    pub(crate) spids: ValueMap,
}

impl SetState {
    pub(crate) fn new(token: Token, quota: u32) -> impl PinInit<Self> {
        pin_init!(Self {
            account: Account::new(quota),
            token,
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
    number: u32,
}

impl<'s> Set<'s> {
    /// Takes over one handle of the set.
    pub(crate) fn from_handle(space: &'s Space, number: u32) -> Self {
        Self { space, number }
    }

    /// Gives up the ownership of the handle, which [`from_handle`](Self::from_handle) takes again.
    pub(crate) fn into_handle(self) -> u32 {
        core::mem::ManuallyDrop::new(self).number
    }

    /// The set's number, by which others than its owner name it.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Allocates an id of `range` with private `data`.
    ///
    /// In atomic context `gfp` must be [`Gfp::Atomic`].
    ///
    /// # Errors
    ///
    /// `EDQUOT` if the quota is used up; else those of [`Space::alloc`].
    pub fn alloc(&self, range: IdRange, data: usize, gfp: Gfp) -> Result<Pasid<'s>> {
        let id = self.space.alloc_in(self.number, range, data, gfp)?;
        Ok(Pasid::from_allocation(self.space, id))
    }

    /// Takes a reference to an id of this set.
    ///
    /// # Errors
    ///
    /// Those of [`Space::get`].
    pub fn get(&self, id: u32) -> Result<Reference<'s>> {
        self.space.get(Some(self.number), id)
    }

    /// Frees an id of this set by its number.
    ///
    /// # Errors
    ///
    /// Those of [`Space::free`].
    pub fn free(&self, id: u32) -> Result {
        self.space.free(Some(self.number), id)
    }

    /// Takes a reference to the id which the owner calls `spid`.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is none; `EBUSY` if it is freed.
    pub fn find_by_spid(&self, spid: u32) -> Result<Reference<'s>> {
        self.space.get_by_spid(self.number, spid)
    }

    /// How many ids the set may have.
    pub fn quota(&self) -> u32 {
        self.with(|state| state.account.quota())
    }

    /// How many ids the set has.
    pub fn used(&self) -> u32 {
        self.with(|state| state.account.taken())
    }

    fn with(&self, f: impl FnOnce(&SetState) -> u32) -> u32 {
        // There is a state as long as there is a handle.
        self.space
            .with_set(self.number, |state| Ok(f(state.deref())))
            .unwrap_or(0)
    }
}

impl Drop for Set<'_> {
    fn drop(&mut self) {
        self.space.put_set(self.number);
    }
}
