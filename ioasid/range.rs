// SPDX-License-Identifier: GPL-2.0

//! Which ids a caller can use.

use kernel::prelude::*;

/// The id that is none, and hence never handed out: `INVALID_IOASID` in C.
pub const INVALID: u32 = u32::MAX;

/// How many ids there are unless somebody says otherwise: a PASID has 20 bits.
pub const DEFAULT_CAPACITY: u32 = 1 << 20;

/// Ids from a first to a last one, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    first: u32,
    last: u32,
}

impl IdRange {
    /// Every id there can be.
    pub const ALL: Self = Self {
        first: 0,
        last: INVALID - 1,
    };

    /// The ids from `first` to `last`, of which [`INVALID`] never is one.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there are none.
    pub fn new(first: u32, last: u32) -> Result<Self> {
        let last = last.min(INVALID - 1);
        if first > last {
            return Err(EINVAL);
        }
        Ok(Self { first, last })
    }

    /// The lowest id.
    pub fn first(self) -> u32 {
        self.first
    }

    /// The highest id.
    pub fn last(self) -> u32 {
        self.last
    }

    /// Whether `id` is one of them.
    pub fn contains(self, id: u32) -> bool {
        (self.first..=self.last).contains(&id)
    }

    /// Those that are not below `floor`, and below `end`.
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
    fn both_ends_are_included() -> Result {
        let range = IdRange::new(3, 5)?;
        assert!(!range.contains(2) && range.contains(3));
        assert!(range.contains(5) && !range.contains(6));
        assert!(IdRange::new(7, 7)?.contains(7));
        Ok(())
    }

    #[test]
    fn none_at_all_is_refused() {
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
    fn within_limits() -> Result {
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
