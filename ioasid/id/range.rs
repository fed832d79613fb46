// SPDX-License-Identifier: GPL-2.0

//! Ranges of ids.

use kernel::prelude::*;

/// The invalid id, which is never allocated: `INVALID_IOASID` in C.
pub const INVALID: u32 = u32::MAX;

/// The default capacity of a space: a PASID has 20 bits.
pub(crate) const DEFAULT_CAPACITY: u32 = 1 << 20;

/// An inclusive range of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    first: u32,
    last: u32,
}

impl IdRange {
    /// All possible ids.
    pub const ALL: Self = Self {
        first: 0,
        last: INVALID - 1,
    };

    /// Creates the range from `first` to `last`. It never contains [`INVALID`].
    ///
    /// # Errors
    ///
    /// `EINVAL` if the range is empty.
    pub fn new(first: u32, last: u32) -> Result<Self> {
        let last = last.min(INVALID - 1);
        if first > last {
            return Err(EINVAL);
        }
        Ok(Self { first, last })
    }

    /// Returns the lowest id.
    pub fn first(self) -> u32 {
        self.first
    }

    /// Returns the highest id.
    pub fn last(self) -> u32 {
        self.last
    }

    /// Whether the range contains `id`.
    pub fn contains(self, id: u32) -> bool {
        (self.first..=self.last).contains(&id)
    }

    /// Returns the part of the range from `floor` to `end - 1`, or `None` if it is empty.
    pub(crate) fn within(self, floor: u32, end: u32) -> Option<Self> {
        let last = self.last.min(end.checked_sub(1)?);
        Self::new(self.first.max(floor), last).ok()
    }
}

#[cfg(CONFIG_KUNIT)]
#[kunit_tests(ioasid_range)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_a_range_are_included() -> Result {
        let range = IdRange::new(3, 5)?;
        assert!(!range.contains(2) && range.contains(3));
        assert!(range.contains(5) && !range.contains(6));
        assert!(IdRange::new(7, 7)?.contains(7));
        Ok(())
    }

    #[test]
    fn an_empty_range_is_refused() {
        assert_eq!(IdRange::new(5, 4), Err(EINVAL));
        assert_eq!(IdRange::new(INVALID, INVALID), Err(EINVAL));
    }

    #[test]
    fn the_invalid_id_is_in_no_range() -> Result {
        assert!(!IdRange::ALL.contains(INVALID));
        assert_eq!(IdRange::new(0, INVALID)?, IdRange::ALL);
        Ok(())
    }

    #[test]
    fn within_returns_the_part_between_two_limits() -> Result {
        let range = IdRange::new(10, 20)?;
        assert_eq!(range.within(0, 100), Some(range));
        assert_eq!(range.within(15, 18), Some(IdRange::new(15, 17)?));
        assert_eq!(range.within(21, 100), None);
        assert_eq!(range.within(0, 10), None);
        assert_eq!(range.within(0, 0), None);
        assert_eq!(range.within(20, 21), Some(IdRange::new(20, 20)?));
        Ok(())
    }
}
