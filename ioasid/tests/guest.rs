// SPDX-License-Identifier: GPL-2.0

//! A guest, for tests: the part that the fake IOMMUs of a guest have in common.

use kernel::{
    prelude::*,
    sync::Arc, //
};

use crate::{
    gfp::Gfp,
    id::{
        key::Key,
        range::{
            IdRange,
            DEFAULT_CAPACITY, //
        },
        state::Right, //
    },
    set::{
        Quota,
        Set,
        SetId,
        Token, //
    },
    space::Space, //
};

/// A guest: a set in the space of the host.
pub(crate) struct Guest {
    host: Arc<Space>,
    set: SetId,
}

impl Guest {
    /// Creates a guest of this host with at most `quota` PASIDs.
    pub(crate) fn of(host: &Arc<Space>, quota: u32) -> Result<Arc<Self>> {
        let set = host.new_set(Token::None, Quota::Exactly(quota))?;
        let guest = Self {
            host: host.clone(),
            set: set.into_handle(),
        };
        Ok(Arc::new(guest, GFP_KERNEL)?)
    }

    /// Creates the only guest of a new host.
    pub(crate) fn alone(quota: u32) -> Result<Arc<Self>> {
        Self::of(&super::space(DEFAULT_CAPACITY)?, quota)
    }

    /// Allocates a PASID for the guest, at most `max`.
    pub(crate) fn alloc(&self, max: Option<u32>) -> Result<u32> {
        let range = IdRange::new(1, max.unwrap_or(DEFAULT_CAPACITY - 1))?;
        let key = self
            .host
            .alloc_in(self.set, range, 0, Gfp::Atomic, Right::Anyone)?;
        Ok(key.id)
    }

    fn key(&self, pasid: u32) -> Key {
        Key::new(Some(self.set), pasid)
    }

    /// Frees a PASID, if it belongs to the guest.
    pub(crate) fn free(&self, pasid: u32) -> Result {
        self.host.free(self.key(pasid))
    }

    /// Returns the number of PASIDs that the guest has.
    pub(crate) fn used(&self) -> u32 {
        self.host
            .with_set(self.set, |set| Ok(set.account.taken()))
            .unwrap_or(0)
    }

    /// Whether a PASID belongs to the guest.
    pub(crate) fn has(&self, pasid: u32) -> bool {
        self.host.find(self.key(pasid), |_| ()).is_ok()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Free the remaining PASIDs of the guest.
        let freed = self
            .host
            .for_each_in(self.set, |pasid| assert_eq!(self.free(pasid), Ok(())));
        assert_eq!(freed, Ok(()));
        drop(Set::from_handle(&self.host, self.set));
    }
}
