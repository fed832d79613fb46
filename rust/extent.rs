// SPDX-License-Identifier: GPL-2.0

//! Compact lists of page frames.
//!
//! A mapping of user memory has to store its page frames until it is removed. Consecutive frames
//! are stored as one 8-byte word. So the list takes almost no memory for huge pages, and 1/512 of
//! the mapped memory for scattered 4 KiB pages.

use core::num::NonZeroU64;

use kernel::{
    alloc::Flags,
    prelude::*, //
};

/// The number of bits of an [`Extent`] for the number of pages.
const COUNT_BITS: u32 = 23;

/// The number of bits of an [`Extent`] for the first frame's number: 52 bits of address.
const FRAME_BITS: u32 = 40;

/// A run of consecutive page frames and a flag, in one word.
///
/// # Invariants
///
/// Starting at bit 0: the number of pages, which isn't 0; the flag; the number of the first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent(NonZeroU64);

impl Extent {
    /// The maximum number of pages of an extent: 31 GiB of 4 KiB pages, a multiple of any huge
    /// page.
    pub const MAX_PAGES: u64 = (1 << COUNT_BITS) - (1 << 18);

    /// Returns the run of `pages` frames starting at `frame`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the number of pages is 0 or too large, or if the run exceeds the range of
    /// physical addresses.
    pub fn new(frame: u64, pages: u64, flag: bool) -> Result<Self> {
        let end = frame.checked_add(pages).ok_or(EINVAL)?;
        if pages == 0 || pages > Self::MAX_PAGES || end > 1 << FRAME_BITS {
            return Err(EINVAL);
        }
        let word = pages | u64::from(flag) << COUNT_BITS | frame << (COUNT_BITS + 1);
        // INVARIANT: Each part fits its bits, as checked above.
        Ok(Self(NonZeroU64::new(word).ok_or(EINVAL)?))
    }

    /// Returns the number of the first frame.
    pub fn frame(self) -> u64 {
        self.0.get() >> (COUNT_BITS + 1)
    }

    /// Returns the number of frames, at least one.
    pub fn pages(self) -> u64 {
        self.0.get() & ((1 << COUNT_BITS) - 1)
    }

    /// Returns the flag that was passed to [`new`](Self::new).
    pub fn flag(self) -> bool {
        self.0.get() & (1 << COUNT_BITS) != 0
    }

    /// Returns this run and `next` as one run, if `next` continues this one.
    pub fn joined(self, next: Self) -> Option<Self> {
        if self.flag() != next.flag() || self.frame() + self.pages() != next.frame() {
            return None;
        }
        Self::new(self.frame(), self.pages() + next.pages(), self.flag()).ok()
    }
}

/// The frames of a mapping, in the order of their addresses.
///
/// The first run is stored inline: most mappings of hugetlb files and of single pages have only
/// one.
#[derive(Default)]
pub struct Extents {
    first: Option<Extent>,
    more: Option<KBox<More>>,
}

/// The runs after the first one.
#[derive(Default)]
struct More {
    list: KVVec<Extent>,
    /// The total number of their pages.
    pages: u64,
}

const _: () = assert!(size_of::<Extents>() == 16);

impl Extents {
    /// Returns an empty list.
    #[inline]
    pub const fn new() -> Self {
        Self {
            first: None,
            more: None,
        }
    }

    /// Appends a run.
    ///
    /// # Errors
    ///
    /// `ENOMEM`. An error changes nothing.
    pub fn push(&mut self, extent: Extent, flags: Flags) -> Result {
        let Some(first) = &mut self.first else {
            self.first = Some(extent);
            return Ok(());
        };
        if self.more.as_ref().is_none_or(|more| more.pages == 0) {
            if let Some(joined) = first.joined(extent) {
                *first = joined;
                return Ok(());
            }
        }
        let more = self.make_more(flags)?;
        match more.list.last_mut() {
            Some(last) => match last.joined(extent) {
                Some(joined) => *last = joined,
                None => more.list.push(extent, flags)?,
            },
            None => more.list.push(extent, flags)?,
        }
        more.pages += extent.pages();
        Ok(())
    }

    /// Returns the storage of the runs after the first one, and allocates it if necessary.
    fn make_more(&mut self, flags: Flags) -> Result<&mut More> {
        if self.more.is_none() {
            self.more = Some(KBox::new(More::default(), flags)?);
        }
        self.more.as_deref_mut().ok_or(ENOMEM)
    }

    /// Appends all runs of `other`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`. An error changes nothing.
    pub fn append(&mut self, other: &Self, flags: Flags) -> Result {
        if let Some(more) = &other.more {
            // Reserve first, so that the loop below can't fail.
            let own = self.make_more(flags)?;
            own.list.reserve(more.list.len() + 1, flags)?;
        }
        for extent in other.iter() {
            self.push(extent, flags)?;
        }
        Ok(())
    }

    /// Returns the number of pages.
    pub fn pages(&self) -> u64 {
        let first = self.first.map_or(0, Extent::pages);
        first + self.more.as_ref().map_or(0, |more| more.pages)
    }

    /// Iterates over the runs, in order.
    pub fn iter(&self) -> impl Iterator<Item = Extent> + '_ {
        let more = self.more.iter().flat_map(|more| more.list.iter());
        Iterator::chain(self.first.iter(), more).copied()
    }

    /// Returns the number of runs.
    pub fn runs(&self) -> usize {
        let more = self.more.as_ref().map_or(0, |more| more.list.len());
        more + usize::from(self.first.is_some())
    }

    /// Returns whether the list is empty.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }
}

#[kunit_tests(kernel_ext_extent)]
mod tests {
    use super::*;

    fn extent(frame: u64, pages: u64) -> Extent {
        Extent::new(frame, pages, false).unwrap_or(Extent(NonZeroU64::MIN))
    }

    #[test]
    fn parts_come_back() -> Result {
        for (frame, pages, flag) in [
            (0, 1, false),
            (0, Extent::MAX_PAGES, true),
            ((1 << FRAME_BITS) - 1, 1, true),
            (0x12345, 512, false),
        ] {
            let e = Extent::new(frame, pages, flag)?;
            assert_eq!((e.frame(), e.pages(), e.flag()), (frame, pages, flag));
        }
        Ok(())
    }

    #[test]
    fn bad_runs_are_refused() {
        assert!(Extent::new(0, 0, false).is_err());
        assert!(Extent::new(0, Extent::MAX_PAGES + 1, false).is_err());
        assert!(Extent::new(1 << FRAME_BITS, 1, false).is_err());
        assert!(Extent::new((1 << FRAME_BITS) - 1, 2, false).is_err());
        assert!(Extent::new(u64::MAX, 1, false).is_err());
    }

    #[test]
    fn neighbours_join() -> Result {
        assert_eq!(extent(8, 2).joined(extent(10, 3)), Some(extent(8, 5)));
        assert_eq!(extent(8, 2).joined(extent(11, 3)), None);
        assert_eq!(extent(8, 2).joined(Extent::new(10, 1, true)?), None);
        assert_eq!(
            extent(0, Extent::MAX_PAGES).joined(extent(Extent::MAX_PAGES, 1)),
            None
        );
        Ok(())
    }

    #[test]
    fn list_keeps_order() -> Result {
        let mut list = Extents::new();
        assert!(list.is_empty());
        for e in [
            extent(5, 1),
            extent(6, 1),
            extent(3, 1),
            extent(4, 4),
            extent(100, 7),
        ] {
            list.push(e, GFP_KERNEL)?;
        }
        let expected = [extent(5, 2), extent(3, 5), extent(100, 7)];
        assert!(list.iter().eq(expected));
        assert_eq!((list.pages(), list.runs()), (14, 3));
        Ok(())
    }

    #[test]
    fn lists_are_appended() -> Result {
        let make = |extents: &[(u64, u64)]| -> Result<Extents> {
            let mut list = Extents::new();
            for &(frame, pages) in extents {
                list.push(extent(frame, pages), GFP_KERNEL)?;
            }
            Ok(list)
        };
        for (to, other, expected) in [
            (&[][..], &[(5, 2), (9, 1)][..], &[(5, 2), (9, 1)][..]),
            (&[(5, 2)], &[(7, 1)], &[(5, 3)]),
            (&[(5, 2)], &[(7, 1), (1, 1)], &[(5, 3), (1, 1)]),
            (
                &[(5, 2), (1, 1)],
                &[(2, 1), (9, 1)],
                &[(5, 2), (1, 2), (9, 1)],
            ),
            (&[(5, 2)], &[], &[(5, 2)]),
        ] {
            let mut list = make(to)?;
            list.append(&make(other)?, GFP_KERNEL)?;
            assert!(list.iter().eq(make(expected)?.iter()));
            assert_eq!(list.pages(), make(expected)?.pages());
        }
        Ok(())
    }
}
