// SPDX-License-Identifier: GPL-2.0

//! Usable iova ranges: the addresses that the IOMMUs translate, without the reserved ones.

use kernel::prelude::*;

use kernel_ext::{
    array_vec::SmallVec,
    iova::Range, //
};

/// Usable addresses, as ranges in ascending order that do not touch.
///
/// An empty list means that there is no restriction: no IOMMU translates.
#[derive(Default)]
pub struct Ranges(SmallVec<Range, 4>);

impl Ranges {
    /// Creates a list without restriction.
    pub const fn new() -> Self {
        Self(SmallVec::new())
    }

    /// Returns the addresses of `aperture` that are in none of `reserved`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if no address is left, `ENOMEM`.
    pub fn build(aperture: Range, reserved: impl Iterator<Item = Range>) -> Result<Self> {
        let mut ranges = Self::new();
        ranges.0.push(aperture, GFP_KERNEL)?;
        for hole in reserved {
            ranges = ranges.excluding(hole)?;
        }
        if ranges.0.is_empty() {
            return Err(EINVAL);
        }
        Ok(ranges)
    }

    /// Returns the addresses of these ranges that are in `aperture` and in none of `reserved`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if no address is left, `ENOMEM`.
    pub fn restricted(
        &self,
        aperture: Range,
        reserved: impl Iterator<Item = Range>,
    ) -> Result<Self> {
        if self.0.is_empty() {
            return Self::build(aperture, reserved);
        }
        let mut ranges = Self::new();
        for range in self.iter().filter(|range| range.overlaps(aperture)) {
            let part = Range {
                start: range.start.max(aperture.start),
                last: range.last.min(aperture.last),
            };
            ranges.0.push(part, GFP_KERNEL)?;
        }
        for hole in reserved {
            ranges = ranges.excluding(hole)?;
        }
        if ranges.0.is_empty() {
            return Err(EINVAL);
        }
        Ok(ranges)
    }

    /// Returns these ranges without the addresses in `hole`.
    fn excluding(self, hole: Range) -> Result<Self> {
        if !self.iter().any(|range| range.overlaps(hole)) {
            return Ok(self);
        }
        let mut ranges = Self::new();
        for range in self.iter() {
            if !range.overlaps(hole) {
                ranges.0.push(range, GFP_KERNEL)?;
                continue;
            }
            if range.start < hole.start {
                let below = Range {
                    start: range.start,
                    last: hole.start - 1,
                };
                ranges.0.push(below, GFP_KERNEL)?;
            }
            if hole.last < range.last {
                let above = Range {
                    start: hole.last + 1,
                    last: range.last,
                };
                ranges.0.push(above, GFP_KERNEL)?;
            }
        }
        Ok(ranges)
    }

    /// Returns whether all of `range` may be used.
    pub fn allows(&self, range: Range) -> bool {
        self.gap_in(range).is_none()
    }

    /// Returns the first gap, a maximal range of unusable addresses, that overlaps `range`.
    pub fn gap_in(&self, range: Range) -> Option<Range> {
        let mut start = if self.is_empty() { None } else { Some(0) };
        for usable in self.iter() {
            let gap = start.zip(usable.start.checked_sub(1));
            let gap = gap.map(|(start, last)| Range { start, last });
            if let Some(gap) = gap.filter(|gap| gap.start <= gap.last && gap.overlaps(range)) {
                return Some(gap);
            }
            start = usable.last.checked_add(1);
        }
        let last = u64::MAX;
        let gap = start.map(|start| Range { start, last });
        gap.filter(|gap| gap.overlaps(range))
    }

    /// Returns the range from the first to the last usable address, or `None` if all addresses are
    /// usable.
    pub fn span(&self) -> Option<Range> {
        Some(Range {
            start: self.0.first()?.start,
            last: self.0.last()?.last,
        })
    }

    /// Returns the ranges, in ascending order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Range> + '_ {
        self.0.iter().copied()
    }

    /// Returns the number of ranges.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there is no restriction.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[kunit_tests(iommu_group_ranges)]
mod tests {
    use super::*;

    /// The MSI window of x86.
    const MSI: Range = r(0xfee0_0000, 0xfeef_ffff);

    const fn r(start: u64, last: u64) -> Range {
        Range { start, last }
    }

    fn check(ranges: &Ranges, expected: &[Range]) {
        assert!(ranges.iter().eq(expected.iter().copied()));
    }

    #[test]
    fn aperture_less_message_window() -> Result {
        let top = (1 << 39) - 1;
        let ranges = Ranges::build(r(0, top), [MSI].into_iter())?;
        check(&ranges, &[r(0, MSI.start - 1), r(MSI.last + 1, top)]);
        assert!(ranges.allows(r(0, MSI.start - 1)));
        assert!(!ranges.allows(r(MSI.start - 1, MSI.start)));
        assert!(!ranges.allows(r(0, top)));
        assert!(!ranges.allows(r(top, top + 1)));
        Ok(())
    }

    #[test]
    fn gaps() -> Result {
        let ranges = Ranges::build(r(10, 99), [r(40, 49)].into_iter())?;
        for (range, expected) in [
            (r(10, 39), None),
            (r(50, 99), None),
            (r(9, 39), Some(r(0, 9))),
            (r(39, 40), Some(r(40, 49))),
            (r(45, 46), Some(r(40, 49))),
            (r(50, 100), Some(r(100, u64::MAX))),
            (Range::ALL, Some(r(0, 9))),
        ] {
            assert_eq!(ranges.gap_in(range), expected);
        }
        let low = Ranges::build(r(0, 9), core::iter::empty())?;
        assert_eq!(low.gap_in(r(0, 9)), None);
        let high = Ranges::build(r(10, u64::MAX), core::iter::empty())?;
        assert_eq!(high.gap_in(r(10, u64::MAX)), None);
        assert_eq!(high.gap_in(r(9, 10)), Some(r(0, 9)));
        Ok(())
    }

    #[test]
    fn holes_at_the_ends_and_across() -> Result {
        let ranges = Ranges::build(r(0, 99), [r(0, 9), r(90, 99), r(40, 49)].into_iter())?;
        check(&ranges, &[r(10, 39), r(50, 89)]);
        let ranges = ranges.restricted(r(0, 99), [r(30, 59)].into_iter())?;
        check(&ranges, &[r(10, 29), r(60, 89)]);
        assert_eq!(ranges.span(), Some(r(10, 89)));
        Ok(())
    }

    #[test]
    fn smaller_aperture() -> Result {
        let ranges = Ranges::build(Range::ALL, [MSI].into_iter())?;
        let ranges = ranges.restricted(r(0x1000, MSI.start + 1), core::iter::empty())?;
        check(&ranges, &[r(0x1000, MSI.start - 1)]);
        Ok(())
    }

    #[test]
    fn nothing_left_is_an_error() {
        let all = Ranges::build(r(0, 99), [r(0, 49), r(50, 99)].into_iter());
        assert_eq!(all.err(), Some(EINVAL));
        let none = Ranges::new().restricted(r(0, 9), [Range::ALL].into_iter());
        assert_eq!(none.err(), Some(EINVAL));
    }

    #[test]
    fn no_ranges_is_no_restriction() {
        let ranges = Ranges::new();
        assert!(ranges.is_empty() && ranges.allows(Range::ALL));
        assert_eq!(ranges.gap_in(Range::ALL), None);
        assert_eq!(ranges.span(), None);
    }
}
