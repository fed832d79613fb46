// SPDX-License-Identifier: GPL-2.0

//! Allocation of ids, lowest free id first.

use kernel::{
    id_pool::IdPool,
    prelude::*, //
};

/// Allocates ids, like `struct ida`. It holds no memory while no id is allocated.
#[derive(Default)]
pub struct Ida {
    pool: Option<IdPool>,
    allocated: usize,
}

impl Ida {
    /// Creates an `Ida` without allocated ids.
    pub const fn new() -> Self {
        Self {
            pool: None,
            allocated: 0,
        }
    }

    /// Allocates the lowest free id.
    ///
    /// # Errors
    ///
    /// Returns `ENOMEM`, or `ENOSPC` if all ids are allocated.
    pub fn alloc(&mut self) -> Result<u32> {
        let pool = self.pool.get_or_insert_with(IdPool::new);
        if pool.find_unused_id(0).is_none() {
            let grown = pool.grow_request().ok_or(ENOSPC)?.realloc(GFP_KERNEL)?;
            pool.grow(grown);
        }
        let id = pool.find_unused_id(0).ok_or(ENOSPC)?;
        self.allocated += 1;
        Ok(id.acquire() as u32)
    }

    /// Frees `id`, which must be allocated.
    pub fn free(&mut self, id: u32) {
        self.allocated -= 1;
        if self.allocated == 0 {
            self.pool = None;
        } else if let Some(pool) = &mut self.pool {
            pool.release_id(id as usize);
        }
    }
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(kernel_ext_ida)]
mod tests {
    use super::*;

    #[test]
    fn lowest_first() -> Result {
        let mut ida = Ida::new();
        for expected in 0..200 {
            assert_eq!(ida.alloc()?, expected);
        }
        for freed in [7, 150, 3] {
            ida.free(freed);
        }
        for expected in [3, 7, 150, 200] {
            assert_eq!(ida.alloc()?, expected);
        }
        Ok(())
    }

    #[test]
    fn frees_memory_when_all_ids_are_free() -> Result {
        let mut ida = Ida::new();
        for _ in 0..100 {
            ida.alloc()?;
        }
        for id in 0..100 {
            ida.free(id);
        }
        assert!(ida.pool.is_none());
        assert_eq!(ida.alloc()?, 0);
        Ok(())
    }
}
