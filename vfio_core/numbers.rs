// SPDX-License-Identifier: GPL-2.0

//! Small numbers, the lowest free one first.

use kernel::{
    id_pool::IdPool,
    prelude::*, //
};

/// A set of numbers in use.
pub(crate) struct Numbers(Option<IdPool>);

impl Numbers {
    /// No number is in use.
    pub(crate) const fn new() -> Self {
        Self(None)
    }

    /// Takes the lowest number that is free.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `ENOSPC` if all numbers are taken.
    pub(crate) fn take(&mut self) -> Result<u32> {
        let pool = self.0.get_or_insert_with(IdPool::new);
        if pool.find_unused_id(0).is_none() {
            let grown = pool.grow_request().ok_or(ENOSPC)?.realloc(GFP_KERNEL)?;
            pool.grow(grown);
        }
        let id = pool.find_unused_id(0).ok_or(ENOSPC)?;
        Ok(id.acquire() as u32)
    }

    /// Gives `number` back; it was taken.
    pub(crate) fn give_back(&mut self, number: u32) {
        if let Some(pool) = &mut self.0 {
            pool.release_id(number as usize);
        }
    }
}
