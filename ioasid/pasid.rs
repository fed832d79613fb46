// SPDX-License-Identifier: GPL-2.0

//! Ids as values that give themselves back.

use core::mem::ManuallyDrop;

use kernel::prelude::*;

use crate::{
    complain::complain,
    key::Key,
    space::Space,
    state::State, //
};

/// An id that was allocated. Dropping it frees the id, in the set that it was allocated from.
///
/// Nothing else can free it: by its number that is refused.
pub struct Pasid<'s> {
    space: &'s Space,
    /// Of the life that began with the allocation, with the right of the owner.
    key: Key,
}

impl<'s> Pasid<'s> {
    /// Takes over an allocation that was made for an owner.
    pub(crate) fn from_allocation(space: &'s Space, key: Key) -> Self {
        Self { space, key }
    }

    /// Gives up the ownership: from now on the id can be freed by its number, and has to be.
    pub fn into_id(self) -> u32 {
        let this = ManuallyDrop::new(self);
        let disowned = this.space.with_id(this.key, |found| found.life.disown());
        if let Err(e) = disowned {
            complain(c"give up id", this.id(), e);
        }
        this.id()
    }

    /// The number.
    pub fn id(&self) -> u32 {
        self.key.id
    }

    /// The key of this id, for calls of [`Space`]; the right to free it stays here. When the id is gone,
    /// the key names no other one.
    pub fn key(&self) -> Key {
        self.key.anyones()
    }

    /// The state just now.
    ///
    /// # Errors
    ///
    /// None but by a bug: an id stays as long as its handle.
    pub fn state(&self) -> Result<State> {
        self.space.state(self.key)
    }

    /// Notes that the id is in use, and tells its listeners.
    ///
    /// # Errors
    ///
    /// `EBUSY` if it is in use already.
    pub fn bind(&self) -> Result {
        self.space.bind(self.key)
    }

    /// Notes that the id is not in use any more, and tells its listeners.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it was not in use.
    pub fn unbind(&self) -> Result {
        self.space.unbind(self.key)
    }

    /// A further reference to the id, which keeps its number from being reused.
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
            complain(c"free id", self.id(), e);
        }
    }
}

/// A reference to an id: as long as there is one, the number is not reused.
pub struct Reference<'s> {
    space: &'s Space,
    /// Of the life that it was taken in.
    key: Key,
}

impl<'s> Reference<'s> {
    /// Takes over a reference.
    pub(crate) fn from_count(space: &'s Space, key: Key) -> Self {
        Self { space, key }
    }

    /// Gives up the ownership: the reference is to be put by the id's number.
    pub fn into_id(self) -> u32 {
        ManuallyDrop::new(self).id()
    }

    /// The number.
    pub fn id(&self) -> u32 {
        self.key.id
    }

    /// The key of this id, for calls of [`Space`]. When the id is gone, the key names no other one.
    pub fn key(&self) -> Key {
        self.key
    }

    /// The state just now.
    ///
    /// # Errors
    ///
    /// `ENOENT` if this reference was put by the id's number.
    pub fn state(&self) -> Result<State> {
        self.space.state(self.key)
    }
}

impl Drop for Reference<'_> {
    fn drop(&mut self) {
        if let Err(e) = self.space.put(self.key) {
            complain(c"put id", self.id(), e);
        }
    }
}
