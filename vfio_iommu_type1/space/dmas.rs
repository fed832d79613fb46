// SPDX-License-Identifier: GPL-2.0

//! The mappings of a container, ordered by iova.

use core::num::NonZeroUsize;

use kernel::{
    page::PAGE_SHIFT,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNodeReservation, //
    },
};

use kernel_ext::iova::Range;

/// The pages of one mapping.
pub(crate) trait Pages: Sized {
    /// Returns the first iova.
    fn start(&self) -> u64;

    /// Merges the pages of the next mapping into this one, so that one request unmaps both.
    ///
    /// # Errors
    ///
    /// Returns `next` if the two have to be unmapped separately.
    fn join(&mut self, next: Self) -> Result<(), Self>;
}

/// A page-aligned user virtual address, stored as its page number plus one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vaddr(NonZeroUsize);

impl Vaddr {
    /// Stores `address`, rounded down to the page size.
    pub(crate) fn new(address: usize) -> Self {
        Self(NonZeroUsize::MIN.saturating_add(address >> PAGE_SHIFT))
    }

    /// Returns the address.
    pub(crate) fn get(self) -> usize {
        (self.0.get() - 1) << PAGE_SHIFT
    }
}

/// The result of one `VFIO_IOMMU_MAP_DMA`.
///
/// A container may have tens of thousands of these, so the type is kept small.
pub(crate) struct Dma<P> {
    /// The user virtual address; `None` while user space has it invalidated.
    vaddr: Option<Vaddr>,
    contents: Contents<P>,
}

/// Where the pages of a mapping are.
enum Contents<P> {
    /// In the tree.
    InTree(P),
    /// Taken out by the holder of the mapping's range, which works on them without the container's
    /// mutex.
    Taken {
        /// The first iova.
        start: u64,
    },
}

impl<P: Pages> Dma<P> {
    /// Creates a mapping of `pages`.
    pub(crate) fn new(vaddr: Vaddr, pages: P) -> Self {
        Self {
            vaddr: Some(vaddr),
            contents: Contents::InTree(pages),
        }
    }

    /// Returns the first iova.
    fn start(&self) -> u64 {
        match &self.contents {
            Contents::InTree(pages) => pages.start(),
            Contents::Taken { start } => *start,
        }
    }

    /// Returns the user virtual address, or `None` if it is invalid.
    pub(crate) fn vaddr(&self) -> Option<Vaddr> {
        self.vaddr
    }

    /// Returns the pages, or `None` while the holder of their range works on them.
    pub(crate) fn pages(&self) -> Option<&P> {
        match &self.contents {
            Contents::InTree(pages) => Some(pages),
            Contents::Taken { .. } => None,
        }
    }

    /// Takes out the pages.
    pub(super) fn take(&mut self) -> Option<P> {
        let start = self.start();
        match core::mem::replace(&mut self.contents, Contents::Taken { start }) {
            Contents::InTree(pages) => Some(pages),
            Contents::Taken { .. } => None,
        }
    }

    /// Puts the pages back.
    pub(super) fn put(&mut self, pages: P) {
        self.contents = Contents::InTree(pages);
    }
}

/// Returns the iova range of a mapping, given its entry in the tree.
fn place<P: Pages>((&last, dma): (&u64, &Dma<P>)) -> Range {
    Range {
        start: dma.start(),
        last,
    }
}

/// Preallocated memory for one more mapping.
pub(crate) type Reservation<P> = RBTreeNodeReservation<u64, Dma<P>>;

/// Mappings that a request has taken out, but that are counted until the request ends.
#[derive(Default)]
pub(super) struct Removed {
    mappings: usize,
    invalid: usize,
}

impl Removed {
    /// Passes the pages of `dma` to `take`. If `take` accepts them, counts `dma` as removed.
    /// Returns whether `take` accepted them, or `None` if the pages are not in the tree.
    fn take<P: Pages>(
        &mut self,
        dma: &mut Dma<P>,
        take: &mut impl FnMut(P) -> Result<(), P>,
    ) -> Option<bool> {
        if let Err(pages) = take(dma.take()?) {
            dma.put(pages);
            return Some(false);
        }
        self.count(dma);
        Some(true)
    }

    /// Counts `dma` as removed.
    fn count<P>(&mut self, dma: &Dma<P>) {
        self.mappings += 1;
        self.invalid += usize::from(dma.vaddr.is_none());
    }
}

/// The mappings of a container. They do not overlap, so the last iova of each serves as its key.
pub(crate) struct DmaTree<P> {
    tree: RBTree<u64, Dma<P>>,
    /// The number of mappings, including those in [`Removed`].
    len: usize,
    /// The number of these mappings whose vaddr is invalid.
    invalid: usize,
}

impl<P: Pages> DmaTree<P> {
    /// Creates an empty tree.
    pub(super) fn new() -> Self {
        Self {
            tree: RBTree::new(),
            len: 0,
            invalid: 0,
        }
    }

    /// Returns the number of mappings.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns the number of mappings whose vaddr is invalid.
    pub(crate) fn invalid(&self) -> usize {
        self.invalid
    }

    /// Returns the range of the first mapping that overlaps `range`.
    pub(crate) fn first_in(&self, range: Range) -> Option<Range> {
        let cursor = self.tree.cursor_lower_bound(&range.start)?;
        Some(place(cursor.current())).filter(|found| found.overlaps(range))
    }

    /// Returns the range of the mapping that contains `iova`.
    pub(crate) fn at(&self, iova: u64) -> Option<Range> {
        self.first_in(Range {
            start: iova,
            last: iova,
        })
    }

    /// Returns `range`, extended to cover every mapping that overlaps it.
    pub(super) fn whole(&self, range: Range) -> Range {
        let Some(first) = self.first_in(range) else {
            return range;
        };
        let last = if first.last >= range.last {
            first.last
        } else {
            self.at(range.last).map_or(range.last, |dma| dma.last)
        };
        Range {
            start: range.start.min(first.start),
            last,
        }
    }

    /// Calls `f` for each mapping that overlaps `range`, in ascending order, until it returns
    /// `false`.
    pub(crate) fn for_each_in(&mut self, range: Range, mut f: impl FnMut(Range, &Dma<P>) -> bool) {
        self.for_each_in_mut(range, |found, dma| f(found, dma));
    }

    /// Like [`for_each_in`](Self::for_each_in), but `f` may change the mappings.
    pub(super) fn for_each_in_mut(
        &mut self,
        range: Range,
        mut f: impl FnMut(Range, &mut Dma<P>) -> bool,
    ) {
        // Fast path: most requests cover one mapping and end where it ends. A lookup by key takes
        // fewer comparisons.
        if let Some(dma) = self.tree.get_mut(&range.last) {
            let found = place((&range.last, &*dma));
            if found.start <= range.start {
                f(found, dma);
                return;
            }
        }
        // A cursor that does not change the tree cannot be moved.
        let mut next = self.tree.cursor_lower_bound_mut(&range.start);
        while let Some(mut cursor) = next {
            let (last, dma) = cursor.current_mut();
            let found = place((last, &*dma));
            if !found.overlaps(range) || !f(found, dma) || found.last >= range.last {
                return;
            }
            next = cursor.move_next();
        }
    }

    /// Puts back the pages of the mapping whose last iova is `last`.
    pub(super) fn put_back(&mut self, last: u64, pages: P) {
        if let Some(dma) = self.tree.get_mut(&last) {
            dma.put(pages);
        }
    }

    /// Sets or invalidates the vaddr of each mapping that begins in `range`.
    pub(super) fn set_vaddr(&mut self, range: Range, vaddr: Option<Vaddr>) {
        let (mut before, mut after) = (0, 0);
        self.for_each_in_mut(range, |found, dma| {
            if found.start >= range.start {
                before += usize::from(dma.vaddr.is_none());
                dma.vaddr = vaddr;
                after += usize::from(vaddr.is_none());
            }
            true
        });
        self.invalid = self.invalid + after - before;
    }

    /// Inserts a mapping whose last iova is `last`. It overlaps no other mapping.
    pub(super) fn insert(&mut self, last: u64, dma: Dma<P>, memory: Reservation<P>) {
        self.len += 1;
        self.tree.insert(memory.into_node(last, dma));
    }

    /// Removes the mapping at exactly `range` if there is one, its pages are in the tree, and
    /// `condition` holds for them. Returns the pages. The mapping is counted until
    /// [`uncount`](Self::uncount).
    pub(super) fn remove_one(
        &mut self,
        range: Range,
        removed: &mut Removed,
        condition: impl FnOnce(&P) -> bool,
    ) -> Option<P> {
        let mut entry = self.tree.find_mut(&range.last)?;
        let dma = entry.get_mut();
        let pages = dma.pages()?;
        if pages.start() != range.start || !condition(pages) {
            return None;
        }
        removed.count(dma);
        match entry.remove().contents {
            Contents::InTree(pages) => Some(pages),
            Contents::Taken { .. } => None,
        }
    }

    /// Removes the mappings that begin in `range`, in ascending order, until `take` rejects the
    /// pages of one. That mapping stays, and the part of `range` that begins with it is returned.
    /// The removed mappings are counted until [`uncount`](Self::uncount).
    pub(super) fn remove_in(
        &mut self,
        range: Range,
        removed: &mut Removed,
        mut take: impl FnMut(P) -> Result<(), P>,
    ) -> Option<Range> {
        let mut next = self.tree.cursor_lower_bound_mut(&range.start);
        while let Some(mut cursor) = next {
            let (last, dma) = cursor.current_mut();
            let found = place((last, &*dma));
            if found.start > range.last {
                break;
            }
            if found.start < range.start {
                next = cursor.move_next();
                continue;
            }
            if !removed.take(dma, &mut take)? {
                return Some(Range {
                    start: found.start,
                    ..range
                });
            }
            // This frees the entry. If there is no next entry, the cursor moves to the previous
            // one, which begins before the range.
            next = cursor.remove_current().0;
        }
        None
    }

    /// Subtracts the removed mappings from the number of mappings.
    pub(super) fn uncount(&mut self, removed: Removed) {
        self.len -= removed.mappings;
        self.invalid -= removed.invalid;
    }
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(vfio_type1_dmas)]
mod tests {
    use super::*;

    /// The pages of a number of merged mappings: the first address and that number.
    struct Fake(u64, usize);

    impl Pages for Fake {
        fn start(&self) -> u64 {
            self.0
        }

        fn join(&mut self, next: Self) -> Result<(), Self> {
            self.1 += next.1;
            Ok(())
        }
    }

    const fn r(start: u64, last: u64) -> Range {
        Range { start, last }
    }

    fn tree() -> Result<DmaTree<Fake>> {
        let mut tree = DmaTree::new();
        for (start, last) in [(0, 0xfff), (0x1000, 0x3fff), (0x8000, u64::MAX)] {
            let memory = Reservation::new(GFP_KERNEL)?;
            tree.insert(last, Dma::new(Vaddr::new(0x5000), Fake(start, 1)), memory);
        }
        Ok(tree)
    }

    #[test]
    fn lookups() -> Result {
        let tree = tree()?;
        for (range, expected) in [
            (r(0, 0), Some(r(0, 0xfff))),
            (r(0xfff, 0x1000), Some(r(0, 0xfff))),
            (r(0x1000, 0x1000), Some(r(0x1000, 0x3fff))),
            (r(0x4000, 0x7fff), None),
            (r(0x4000, 0x8000), Some(r(0x8000, u64::MAX))),
            (r(u64::MAX, u64::MAX), Some(r(0x8000, u64::MAX))),
        ] {
            assert_eq!(tree.first_in(range), expected);
        }
        assert_eq!(tree.whole(r(0x2000, 0x2fff)), r(0x1000, 0x3fff));
        assert_eq!(tree.whole(r(0x2000, 0x9000)), r(0x1000, u64::MAX));
        assert_eq!(tree.whole(r(0x4000, 0x7fff)), r(0x4000, 0x7fff));
        Ok(())
    }

    #[test]
    fn removed_mappings_count_until_settled() -> Result {
        let mut tree = tree()?;
        tree.set_vaddr(r(0, 0xfff), None);
        assert_eq!((tree.len(), tree.invalid()), (3, 1));
        let mut removed = Removed::default();
        let mut taken = 0;
        // A mapping that begins before the range stays.
        let rest = tree.remove_in(r(0x2000, u64::MAX), &mut removed, |_| {
            taken += 1;
            Ok(())
        });
        assert_eq!((taken, rest), (1, None));
        let rest = tree.remove_in(r(0, 0), &mut removed, |_| Ok(()));
        assert_eq!(rest, None);
        assert_eq!((tree.len(), tree.invalid()), (3, 1));
        tree.uncount(removed);
        assert_eq!((tree.len(), tree.invalid()), (1, 0));
        assert_eq!(tree.first_in(Range::ALL), Some(r(0x1000, 0x3fff)));
        Ok(())
    }

    #[test]
    fn one_mapping_is_removed_on_condition() -> Result {
        let mut tree = tree()?;
        let mut removed = Removed::default();
        let exactly = r(0x1000, 0x3fff);
        for range in [r(0x1000, 0x1fff), r(0x2000, 0x3fff), r(0x4000, 0x7fff)] {
            assert!(tree.remove_one(range, &mut removed, |_| true).is_none());
        }
        assert!(tree.remove_one(exactly, &mut removed, |_| false).is_none());
        assert_eq!(tree.first_in(exactly), Some(exactly));
        let pages = tree.remove_one(exactly, &mut removed, |pages| pages.1 == 1);
        assert_eq!(pages.map(|pages| pages.0), Some(exactly.start));
        assert_eq!((tree.first_in(exactly), tree.len()), (None, 3));
        tree.uncount(removed);
        assert_eq!(tree.len(), 2);
        Ok(())
    }

    #[test]
    fn rejected_pages_stay() -> Result {
        let mut tree = tree()?;
        let mut removed = Removed::default();
        let mut left = 1;
        let rest = tree.remove_in(r(0, u64::MAX), &mut removed, |pages| {
            left -= 1;
            if left == 0 {
                Ok(())
            } else {
                Err(pages)
            }
        });
        assert_eq!(rest, Some(r(0x1000, u64::MAX)));
        let rest = tree.remove_in(r(0x800, 0x1fff), &mut removed, Err);
        assert_eq!(rest, Some(r(0x1000, 0x1fff)));
        let exactly = r(0x1000, 0x3fff);
        assert_eq!(tree.remove_in(exactly, &mut removed, Err), Some(exactly));
        assert_eq!(tree.remove_in(exactly, &mut removed, |_| Ok(())), None);
        tree.uncount(removed);
        assert_eq!(tree.len(), 1);
        tree.for_each_in(Range::ALL, |_, dma| {
            assert!(dma.pages().is_some());
            true
        });
        Ok(())
    }

    #[test]
    fn vaddrs() {
        for address in [0, 0x1000, usize::MAX & !0xfff] {
            assert_eq!(Vaddr::new(address).get(), address);
        }
        assert_eq!(size_of::<Option<Vaddr>>(), size_of::<usize>());
    }
}
