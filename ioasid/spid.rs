// SPDX-License-Identifier: GPL-2.0

//! SPIDs: numbers that a set's owner uses for its ids. For example, a guest has its own numbers.

#[allow(unsafe_code)]
pub(crate) mod abi;

use kernel::{
    prelude::*,
    sync::rcu, //
};

use crate::{
    gfp::Gfp,
    id::{
        handle::Reference,
        key::Key,
        range::INVALID, //
    },
    set::SetId,
    space::Space,
    warn_failed, //
};

impl Space {
    /// Sets the SPID of an id.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `spid` is [`INVALID`] or another id of the set has it; `EBUSY` if the id has an
    /// SPID or has been freed; `ENOENT` if there is no such id; `ENOMEM`; otherwise those of
    /// [`get`](Self::get).
    pub fn attach_spid(&self, key: Key, spid: u32) -> Result {
        if spid == INVALID {
            return Err(EINVAL);
        }
        // The id and its set exist as long as the reference.
        let reference = self.get(key)?;
        let _locked = self.spid_lock.lock();
        self.with_id(reference.key(), |found| {
            if found.spid().is_some() {
                return Err(EBUSY);
            }
            self.with_set(found.set(), |set| {
                let inserted = set.spids.insert(spid, reference.id(), Gfp::Atomic);
                inserted.map_err(|e| if e == EBUSY { EINVAL } else { e })
            })?;
            found.set_spid(Some(spid));
            Ok(())
        })
    }

    /// Removes the SPID of an id.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such id; `EACCES` if it is not in the key's set; `EOVERFLOW` if
    /// there are too many references.
    pub fn detach_spid(&self, key: Key) -> Result {
        let held = self.hold(key)?;
        let _locked = self.spid_lock.lock();
        self.with_id(held.key(), |found| {
            if let Some(spid) = found.spid() {
                found.set_spid(None);
                self.remove_spid(held.id(), found.set(), spid);
            }
            Ok(())
        })
    }

    /// Removes the SPID of an id that is no longer in use.
    pub(crate) fn forget_spid(&self, id: u32, set: SetId, spid: u32) {
        let _locked = self.spid_lock.lock();
        self.remove_spid(id, set, spid);
    }

    /// Removes an SPID from a set that still has the id.
    fn remove_spid(&self, id: u32, set: SetId, spid: u32) {
        let removed = self.with_set(set, |set| {
            set.spids.remove(spid, id);
            Ok(())
        });
        if let Err(e) = removed {
            warn_failed(fmt!("remove SPID {spid} of id {id}"), e);
        }
    }

    /// Takes a reference to the id with the SPID `spid` in a set.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such set; `ENOENT` if the set has no such SPID; `EBUSY` if the id
    /// has been freed.
    pub(crate) fn get_by_spid(&self, set: SetId, spid: u32) -> Result<Reference<'_>> {
        let reference = self.get(Key::new(Some(set), self.by_spid(set, spid)?))?;
        // The number may have been reused before the reference was taken.
        let spid_now = self.with_id(reference.key(), |found| Ok(found.spid()))?;
        if spid_now != Some(spid) {
            return Err(ENOENT);
        }
        Ok(reference)
    }

    /// Returns the id with the SPID `spid` in a set. Without a reference, it may be freed at any
    /// time.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such set; `ENOENT` if the set has no such SPID.
    pub(crate) fn by_spid(&self, set: SetId, spid: u32) -> Result<u32> {
        let guard = rcu::Guard::new();
        self.with_set(set, |state| state.spids.get(spid, &guard).ok_or(ENOENT))
    }
}
