// SPDX-License-Identifier: GPL-2.0

//! Allocation of consecutive entries of a table.

use kernel::{
    bitmap::BitmapVec,
    prelude::*, //
};

/// An allocator of consecutive numbers.
pub(super) struct Pool {
    taken: BitmapVec,
    free: usize,
}

impl Pool {
    /// Returns a pool of `len` free numbers.
    pub(super) fn new(len: usize) -> Result<Self> {
        Ok(Self {
            taken: BitmapVec::new(len, GFP_KERNEL)?,
            free: len,
        })
    }

    /// Returns how many numbers are free.
    pub(super) fn free(&self) -> usize {
        self.free
    }

    /// Allocates the first `count` consecutive free numbers and returns the first one. Returns
    /// `None` if there are none.
    pub(super) fn take(&mut self, count: usize) -> Option<usize> {
        let mut from = 0;
        while count <= self.free {
            let first = self.taken.next_zero_bit(from)?;
            let end = self.taken.next_bit(first).unwrap_or(self.taken.len());
            if end - first >= count {
                (first..first + count).for_each(|number| self.taken.set_bit(number));
                self.free -= count;
                return Some(first);
            }
            if end == self.taken.len() {
                break;
            }
            from = end;
        }
        None
    }

    /// Frees consecutive numbers that were allocated.
    pub(super) fn give_back(&mut self, first: usize, count: usize) {
        (first..first + count).for_each(|number| self.taken.clear_bit(number));
        self.free += count;
    }
}

#[kunit_tests(vfio_pamu_pool)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_contiguous() -> Result {
        let mut pool = Pool::new(10)?;
        assert_eq!(pool.take(11), None);
        assert_eq!(pool.take(3), Some(0));
        assert_eq!(pool.take(3), Some(3));
        assert_eq!(pool.take(3), Some(6));
        pool.give_back(3, 3);
        assert_eq!(pool.free(), 4);
        assert_eq!(pool.take(4), None);
        assert_eq!(pool.take(2), Some(3));
        assert_eq!(pool.take(1), Some(5));
        assert_eq!(pool.take(1), Some(9));
        assert_eq!((pool.take(1), pool.free()), (None, 0));
        Ok(())
    }

    /// Allocates and frees at random, and compares with a plain list.
    #[test]
    fn random_operations_match_a_list() -> Result {
        const LEN: usize = 100;
        let mut pool = Pool::new(LEN)?;
        let mut taken = [false; LEN];
        let mut rows: KVec<(usize, usize)> = KVec::new();
        let mut random = kernel_ext::testing::Random::new(1);
        for _ in 0..2000 {
            if random.below(2) == 0 {
                let count = 1 + random.below(20) as usize;
                let fits = taken.windows(count).any(|row| !row.contains(&true));
                let first = pool.take(count);
                assert_eq!(first.is_some(), fits);
                if let Some(first) = first {
                    assert!(!taken[first..first + count].contains(&true));
                    taken[first..first + count].fill(true);
                    rows.push((first, count), GFP_KERNEL)?;
                }
            } else if !rows.is_empty() {
                let at = random.below(rows.len() as u64) as usize;
                let (first, count) = rows.remove(at).map_err(|_| EINVAL)?;
                pool.give_back(first, count);
                taken[first..first + count].fill(false);
            }
            assert_eq!(pool.free(), taken.iter().filter(|taken| !**taken).count());
        }
        Ok(())
    }
}
