// SPDX-License-Identifier: GPL-2.0

//! What a set's owner calls its ids: a guest has numbers of its own.

use kernel::{
    prelude::*,
    sync::rcu, //
};

use kernel_ext::gfp::Gfp;

use super::Space;
use crate::{
    complain::complain,
    key::Key,
    pasid::Reference,
    range::INVALID,
    set_id::SetId, //
};

impl Space {
    /// Notes that the id's set calls it `spid`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `spid` is [`INVALID`] or another id of the set has it; `EBUSY` if the id has one, or
    /// is freed; `ENOENT` if there is no such id; `ENOMEM`.
    pub fn attach_spid(&self, key: Key, spid: u32) -> Result {
        if spid == INVALID {
            return Err(EINVAL);
        }
        // As long as there is a reference the id and its set stay.
        let reference = self.get(key)?;
        let _names = self.names.lock();
        self.with_id(reference.key(), |found| {
            if found.spid().is_some() {
                return Err(EBUSY);
            }
            self.with_set(found.set(), |set| {
                let entered = set.spids.insert(spid, reference.id(), Gfp::Atomic);
                entered.map_err(|e| if e == EBUSY { EINVAL } else { e })
            })?;
            found.set_spid(Some(spid));
            Ok(())
        })
    }

    /// Forgets what the id's set calls it.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such id; `EOVERFLOW` if there are too many references.
    pub fn detach_spid(&self, key: Key) -> Result {
        let held = self.hold(key)?;
        let _names = self.names.lock();
        self.with_id(held.key(), |found| {
            if let Some(spid) = found.spid() {
                found.set_spid(None);
                self.remove_spid(held.id(), found.set(), spid);
            }
            Ok(())
        })
    }

    /// Forgets what a set calls an id that is not in use any more.
    pub(super) fn forget_spid(&self, id: u32, set: SetId, spid: u32) {
        let _names = self.names.lock();
        self.remove_spid(id, set, spid);
    }

    /// Forgets a name, in a set which has the id still.
    fn remove_spid(&self, id: u32, set: SetId, spid: u32) {
        let removed = self.with_set(set, |set| {
            set.spids.remove(spid, id);
            Ok(())
        });
        if let Err(e) = removed {
            complain(c"forget the SPID of id", id, e);
        }
    }

    /// Takes a reference to the id that a set calls `spid`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such set; `ENOENT` if it calls nothing so; `EBUSY` if the id is freed.
    pub(crate) fn get_by_spid(&self, set: SetId, spid: u32) -> Result<Reference<'_>> {
        let reference = self.get(Key::new(Some(set), self.by_spid(set, spid)?))?;
        // The number may have been reused before the reference was there.
        let spid_now = self.with_id(reference.key(), |found| Ok(found.spid()))?;
        if spid_now != Some(spid) {
            return Err(ENOENT);
        }
        Ok(reference)
    }

    /// The id that a set calls `spid`, which may be gone any time.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such set; `ENOENT` if it calls nothing so.
    pub(crate) fn by_spid(&self, set: SetId, spid: u32) -> Result<u32> {
        let guard = rcu::Guard::new();
        self.with_set(set, |state| state.spids.get(spid, &guard).ok_or(ENOENT))
    }
}
