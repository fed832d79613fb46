// SPDX-License-Identifier: GPL-2.0

//! Allocation of small numbers, lowest free number first.

use kernel::{
    id_pool::IdPool,
    prelude::*, //
};

/// A set of allocated numbers. It holds no memory while no number is allocated.
pub(crate) struct Numbers {
    pool: Option<IdPool>,
    taken: usize,
}

impl Numbers {
    /// Creates a set without allocated numbers.
    pub(crate) const fn new() -> Self {
        Self {
            pool: None,
            taken: 0,
        }
    }

    /// Allocates the lowest free number.
    ///
    /// # Errors
    ///
    /// Returns `ENOMEM`, or `ENOSPC` if all numbers are allocated.
    pub(crate) fn take(&mut self) -> Result<u32> {
        let pool = self.pool.get_or_insert_with(IdPool::new);
        if pool.find_unused_id(0).is_none() {
            let grown = pool.grow_request().ok_or(ENOSPC)?.realloc(GFP_KERNEL)?;
            pool.grow(grown);
        }
        let id = pool.find_unused_id(0).ok_or(ENOSPC)?;
        self.taken += 1;
        Ok(id.acquire() as u32)
    }

    /// Frees `number`, which must be allocated.
    pub(crate) fn give_back(&mut self, number: u32) {
        self.taken -= 1;
        if self.taken == 0 {
            self.pool = None;
        } else if let Some(pool) = &mut self.pool {
            pool.release_id(number as usize);
        }
    }
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(vfio_core_numbers)]
mod tests {
    use super::*;

    #[test]
    fn lowest_first() -> Result {
        let mut numbers = Numbers::new();
        for expected in 0..200 {
            assert_eq!(numbers.take()?, expected);
        }
        for freed in [7, 150, 3] {
            numbers.give_back(freed);
        }
        for expected in [3, 7, 150, 200] {
            assert_eq!(numbers.take()?, expected);
        }
        Ok(())
    }

    #[test]
    fn starts_anew_when_all_are_back() -> Result {
        let mut numbers = Numbers::new();
        for _ in 0..100 {
            numbers.take()?;
        }
        for number in 0..100 {
            numbers.give_back(number);
        }
        assert!(numbers.pool.is_none());
        assert_eq!(numbers.take()?, 0);
        Ok(())
    }
}
