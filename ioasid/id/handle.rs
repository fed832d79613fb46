// SPDX-License-Identifier: GPL-2.0

//! Ids as values that free themselves when dropped.

use core::mem::ManuallyDrop;

use kernel::prelude::*;

use crate::{
    id::{
        key::Key,
        state::IdState, //
    },
    space::Space,
    warn_failed, //
};

/// An allocated id. Dropping it frees the id in the set from which it was allocated.
///
/// No other caller can free it: freeing it by its number fails.
pub struct Pasid<'s> {
    space: &'s Space,
    /// The key of the lifetime that began with the allocation, with the owner's right.
    key: Key,
}

impl<'s> Pasid<'s> {
    /// Takes ownership of an allocation that was made for an owner.
    pub(crate) fn from_allocation(space: &'s Space, key: Key) -> Self {
        Self { space, key }
    }

    /// Releases the ownership: from now on the id can, and must, be freed by its number.
    pub fn into_id(self) -> u32 {
        let this = ManuallyDrop::new(self);
        let disowned = this
            .space
            .with_id(this.key, |found| found.lifetime.disown());
        if let Err(e) = disowned {
            warn_failed(fmt!("give up the ownership of id {}", this.id()), e);
        }
        this.id()
    }

    /// Returns the number.
    pub fn id(&self) -> u32 {
        self.key.id
    }

    /// Returns the key of this id, for calls of [`Space`]. The key does not include the right to
    /// free the id. When the id is gone, the key never refers to another id.
    pub fn key(&self) -> Key {
        self.key.anyones()
    }

    /// Returns the current state.
    ///
    /// # Errors
    ///
    /// None, except for a bug: an id exists as long as its handle.
    pub fn state(&self) -> Result<IdState> {
        self.space.state(self.key)
    }

    /// Marks the id as in use, and calls its notifiers.
    ///
    /// # Errors
    ///
    /// `EBUSY` if it is already in use.
    pub fn bind(&self) -> Result {
        self.space.bind(self.key)
    }

    /// Marks the id as no longer in use, and calls its notifiers.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it was not in use.
    pub fn unbind(&self) -> Result {
        self.space.unbind(self.key)
    }

    /// Takes another reference to the id, which prevents its number from being reused.
    ///
    /// # Errors
    ///
    /// Those of [`Space::get`].
    pub fn get(&self) -> Result<Reference<'s>> {
        self.space.get(self.key)
    }
}

impl Drop for Pasid<'_> {
    fn drop(&mut self) {
        if let Err(e) = self.space.free(self.key) {
            warn_failed(fmt!("free id {}", self.id()), e);
        }
    }
}

/// A reference to an id. The number is not reused while a reference exists.
pub struct Reference<'s> {
    space: &'s Space,
    /// The key of the lifetime in which the reference was taken.
    key: Key,
}

impl<'s> Reference<'s> {
    /// Takes ownership of a reference.
    pub(crate) fn from_count(space: &'s Space, key: Key) -> Self {
        Self { space, key }
    }

    /// Releases the ownership: the reference must be dropped by the id's number.
    pub fn into_id(self) -> u32 {
        ManuallyDrop::new(self).id()
    }

    /// Returns the number.
    pub fn id(&self) -> u32 {
        self.key.id
    }

    /// Returns the key of this id, for calls of [`Space`]. When the id is gone, the key never
    /// refers to another id.
    pub fn key(&self) -> Key {
        self.key
    }

    /// Returns the current state.
    ///
    /// # Errors
    ///
    /// `ENOENT` if this reference was dropped by the id's number, and the id is gone.
    pub fn state(&self) -> Result<IdState> {
        self.space.state(self.key)
    }
}

impl Drop for Reference<'_> {
    fn drop(&mut self) {
        if let Err(e) = self.space.put(self.key) {
            warn_failed(fmt!("drop a reference to id {}", self.id()), e);
        }
    }
}
