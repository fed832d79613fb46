// SPDX-License-Identifier: GPL-2.0

//! Ranges of iovas, the addresses that devices use.

use kernel::prelude::*;

/// A range of iovas. Both ends are inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first address.
    pub start: u64,
    /// The last address.
    pub last: u64,
}

impl Range {
    /// The range of all addresses.
    pub const ALL: Self = Self {
        start: 0,
        last: u64::MAX,
    };

    /// Returns the range of `size` bytes at `start`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `size` is 0, `EOVERFLOW` if the range exceeds the last address.
    #[inline]
    pub fn of_size(start: u64, size: u64) -> Result<Self> {
        let last = start
            .checked_add(size.checked_sub(1).ok_or(EINVAL)?)
            .ok_or(EOVERFLOW)?;
        Ok(Self { start, last })
    }

    /// Returns whether the ranges have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.start <= other.last && other.start <= self.last
    }

    /// Returns whether all of `other` is in this range.
    pub fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.last <= self.last
    }
}

#[kunit_tests(kernel_ext_iova)]
mod tests {
    use super::*;

    const fn r(start: u64, last: u64) -> Range {
        Range { start, last }
    }

    #[test]
    fn sizes() -> Result {
        assert_eq!(Range::of_size(0x1000, 0x1000)?, r(0x1000, 0x1fff));
        assert_eq!(Range::of_size(u64::MAX, 1)?, r(u64::MAX, u64::MAX));
        assert_eq!(Range::of_size(0, u64::MAX)?, r(0, u64::MAX - 1));
        assert_eq!(Range::of_size(5, 0), Err(EINVAL));
        assert_eq!(Range::of_size(2, u64::MAX), Err(EOVERFLOW));
        Ok(())
    }

    #[test]
    fn overlap_is_symmetric() {
        for (a, b, expected) in [
            (r(0, 9), r(10, 19), false),
            (r(0, 10), r(10, 19), true),
            (r(0, 99), r(10, 19), true),
            (r(12, 13), r(10, 19), true),
            (Range::ALL, r(u64::MAX, u64::MAX), true),
        ] {
            assert_eq!(a.overlaps(b), expected);
            assert_eq!(b.overlaps(a), expected);
        }
    }
}
