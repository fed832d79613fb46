// SPDX-License-Identifier: GPL-2.0

//! Ids as values that give themselves back.

use core::mem::ManuallyDrop;

use kernel::prelude::*;

use crate::{
    space::Space, //
    state::State,
};

/// An id that was allocated. Dropping it frees the id, in the set that it was allocated from.
///
/// Nothing else can free it: by its number that is refused.
pub struct Pasid<'s> {
    space: &'s Space,
    id: u32,
}

impl<'s> Pasid<'s> {
    /// Takes over an allocation.
    pub(crate) fn from_allocation(space: &'s Space, id: u32) -> Self {
        space.own(id);
        Self { space, id }
    }

    /// Gives up the ownership: from now on the id can be freed by its number, and has to be.
    pub fn into_id(self) -> u32 {
        let this = ManuallyDrop::new(self);
        this.space.disown(this.id);
        this.id
    }

    /// The number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The state just now.
    pub fn state(&self) -> State {
        // There is a state as long as there is an allocation.
        self.space.state(self.id).unwrap_or(State::FreePending)
    }

    /// Notes that the id is in use, and tells those who listen.
    ///
    /// # Errors
    ///
    /// `EBUSY` if it is in use already, or is freed.
    pub fn bind(&self) -> Result {
        self.space.bind(self.id)
    }

    /// Notes that the id is not in use any more, and tells those who listen.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it was not in use.
    pub fn unbind(&self) -> Result {
        self.space.unbind(self.id)
    }

    /// Notes what the set's owner calls this id.
    ///
    /// # Errors
    ///
    /// Those of [`Space::attach_spid`].
    pub fn attach_spid(&self, spid: u32) -> Result {
        self.space.attach_spid(self.id, spid)
    }

    /// Forgets what the set's owner calls this id.
    pub fn detach_spid(&self) {
        // There is an id, and whether it had a name doesn't matter.
        let _ = self.space.detach_spid(self.id);
    }

    /// A further reference to the id, which keeps its number from being reused.
    ///
    /// # Errors
    ///
    /// Those of [`Space::get`].
    pub fn get(&self) -> Result<Reference<'s>> {
        self.space.get(None, self.id)
    }
}

impl Drop for Pasid<'_> {
    fn drop(&mut self) {
        self.space.disown(self.id);
        // It can't fail: nobody else could free the id.
        let _ = self.space.free(None, self.id);
    }
}

/// A reference to an id: as long as there is one, the number is not reused.
pub struct Reference<'s> {
    space: &'s Space,
    id: u32,
}

impl<'s> Reference<'s> {
    /// Takes over a reference.
    pub(crate) fn from_count(space: &'s Space, id: u32) -> Self {
        Self { space, id }
    }

    /// Gives up the ownership: somebody will put the reference by the id's number.
    pub fn into_id(self) -> u32 {
        ManuallyDrop::new(self).id
    }

    /// The number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The state just now.
    pub fn state(&self) -> State {
        // There is a state as long as there is a reference.
        self.space.state(self.id).unwrap_or(State::FreePending)
    }
}

impl Drop for Reference<'_> {
    fn drop(&mut self) {
        // There is an id as long as there is a reference.
        let _ = self.space.put(None, self.id);
    }
}
