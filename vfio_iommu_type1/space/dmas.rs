// SPDX-License-Identifier: GPL-2.0

//! What is mapped, by address.

use core::num::NonZeroUsize;

use kernel::{
    page::PAGE_SHIFT,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNodeReservation, //
    },
};

use iommu_group::ranges::Range;

/// The pages of one mapping.
pub(crate) trait Pages: Sized {
    /// The first device address.
    fn start(&self) -> u64;

    /// Takes in the pages of the mapping that follows, so that all of them are unmapped by one request.
    ///
    /// # Errors
    ///
    /// `next`, if they have to be unmapped one by one.
    fn join(&mut self, next: Self) -> Result<(), Self>;
}

/// An address in the program's memory, a multiple of the page size: its page number plus one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vaddr(NonZeroUsize);

impl Vaddr {
    /// Wraps an address, of which only the page counts.
    pub(crate) fn new(address: usize) -> Self {
        Self(NonZeroUsize::MIN.saturating_add(address >> PAGE_SHIFT))
    }

    /// The address.
    pub(crate) fn get(self) -> usize {
        (self.0.get() - 1) << PAGE_SHIFT
    }
}

/// One `VFIO_IOMMU_MAP_DMA`.
///
/// There may be tens of thousands, so it is kept small.
pub(crate) struct Dma<P> {
    /// The address in the program's memory; `None` while the program has it invalidated.
    vaddr: Option<Vaddr>,
    contents: Contents<P>,
}

/// Where the pages of a mapping are.
enum Contents<P> {
    /// Here.
    Here(P),
    /// With the holder of the mapping's range, who works on them without the container's mutex.
    Away {
        /// The first device address.
        start: u64,
    },
}

impl<P: Pages> Dma<P> {
    /// A mapping of `pages`.
    pub(crate) fn new(vaddr: Vaddr, pages: P) -> Self {
        Self {
            vaddr: Some(vaddr),
            contents: Contents::Here(pages),
        }
    }

    /// The first device address.
    fn start(&self) -> u64 {
        match &self.contents {
            Contents::Here(pages) => pages.start(),
            Contents::Away { start } => *start,
        }
    }

    /// The address in the program's memory, unless it is invalid.
    pub(crate) fn vaddr(&self) -> Option<Vaddr> {
        self.vaddr
    }

    /// The pages; `None` while the holder of their range works on them.
    pub(crate) fn pages(&self) -> Option<&P> {
        match &self.contents {
            Contents::Here(pages) => Some(pages),
            Contents::Away { .. } => None,
        }
    }

    /// The pages, to be changed.
    pub(crate) fn pages_mut(&mut self) -> Option<&mut P> {
        match &mut self.contents {
            Contents::Here(pages) => Some(pages),
            Contents::Away { .. } => None,
        }
    }

    /// Takes the pages out.
    pub(super) fn take(&mut self) -> Option<P> {
        let start = self.start();
        match core::mem::replace(&mut self.contents, Contents::Away { start }) {
            Contents::Here(pages) => Some(pages),
            Contents::Away { .. } => None,
        }
    }

    /// Puts the pages back.
    pub(super) fn put(&mut self, pages: P) {
        self.contents = Contents::Here(pages);
    }
}

/// The addresses of a mapping, given its entry in the tree.
fn place<P: Pages>((&last, dma): (&u64, &Dma<P>)) -> Range {
    Range {
        start: dma.start(),
        last,
    }
}

/// Memory for one more mapping.
pub(crate) type Reservation<P> = RBTreeNodeReservation<u64, Dma<P>>;

/// Mappings that were taken out, but count until the request which does so ends.
#[derive(Default)]
pub(super) struct Removed {
    mappings: usize,
    invalid: usize,
}

impl Removed {
    /// Hands the pages of `dma`, which is to be removed, to `take`, and counts it. Returns whether they were
    /// taken; `None` if somebody works on them.
    fn take<P: Pages>(
        &mut self,
        dma: &mut Dma<P>,
        take: &mut impl FnMut(P) -> Result<(), P>,
    ) -> Option<bool> {
        if let Err(pages) = take(dma.take()?) {
            dma.put(pages);
            return Some(false);
        }
        self.mappings += 1;
        self.invalid += usize::from(dma.vaddr.is_none());
        Some(true)
    }
}

/// The mappings of a container. They don't overlap, so that each is found by its last address.
pub(crate) struct DmaTree<P> {
    tree: RBTree<u64, Dma<P>>,
    /// How many there are, with those of [`Removed`].
    len: usize,
    /// How many of these have no valid address in the program's memory.
    invalid: usize,
}

impl<P: Pages> DmaTree<P> {
    /// No mappings.
    pub(super) fn new() -> Self {
        Self {
            tree: RBTree::new(),
            len: 0,
            invalid: 0,
        }
    }

    /// How many mappings there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many mappings have no valid address in the program's memory.
    pub(crate) fn invalid(&self) -> usize {
        self.invalid
    }

    /// Where the first mapping is that has an address in `range`.
    pub(crate) fn first_in(&self, range: Range) -> Option<Range> {
        let cursor = self.tree.cursor_lower_bound(&range.start)?;
        Some(place(cursor.current())).filter(|found| found.overlaps(range))
    }

    /// The mapping that has address `iova`.
    pub(crate) fn at(&self, iova: u64) -> Option<Range> {
        self.first_in(Range {
            start: iova,
            last: iova,
        })
    }

    /// `range`, and all of the mappings that have a part of it.
    pub(super) fn whole(&self, range: Range) -> Range {
        Range {
            start: self.at(range.start).map_or(range.start, |dma| dma.start),
            last: self.at(range.last).map_or(range.last, |dma| dma.last),
        }
    }

    /// Calls `f` for each mapping that has an address in `range`, in order, until it returns `false`.
    pub(crate) fn for_each_in(&mut self, range: Range, mut f: impl FnMut(Range, &Dma<P>) -> bool) {
        self.for_each_in_mut(range, |found, dma| f(found, dma));
    }

    /// As [`for_each_in`](Self::for_each_in), to change the mappings.
    pub(super) fn for_each_in_mut(
        &mut self,
        range: Range,
        mut f: impl FnMut(Range, &mut Dma<P>) -> bool,
    ) {
        // Most requests are about one mapping, which ends where they do: it is found by less comparisons.
        if let Some(dma) = self.tree.get_mut(&range.last) {
            let found = place((&range.last, &*dma));
            if found.start <= range.start {
                f(found, dma);
                return;
            }
        }
        // A cursor that doesn't change the tree can't be moved.
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

    /// Puts the pages of the mapping that ends with address `last` back.
    pub(super) fn put_back(&mut self, last: u64, pages: P) {
        if let Some(dma) = self.tree.get_mut(&last) {
            dma.put(pages);
        }
    }

    /// Sets or invalidates the address in the program's memory of each mapping in `range`, from the first
    /// one that begins there on.
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

    /// Enters a mapping that ends with address `last`. Nothing else is mapped there.
    pub(super) fn insert(&mut self, last: u64, dma: Dma<P>, memory: Reservation<P>) {
        self.len += 1;
        self.tree.insert(memory.into_node(last, dma));
    }

    /// Takes the mappings out that begin in `range`, in order, until `take` doesn't take the pages of one.
    /// That one stays; returns the part of `range` from there on. They go on counting until
    /// [`settle`](Self::settle).
    pub(super) fn remove_in(
        &mut self,
        range: Range,
        removed: &mut Removed,
        mut take: impl FnMut(P) -> Result<(), P>,
    ) -> Option<Range> {
        // As above.
        if let Some(mut entry) = self.tree.find_mut(&range.last) {
            let dma = entry.get_mut();
            if dma.start() == range.start {
                if !removed.take(dma, &mut take)? {
                    return Some(range);
                }
                entry.remove_node();
                return None;
            }
        }
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
            // The entry is freed here. Without a next one the cursor goes to the one before, which begins
            // before the range.
            next = cursor.remove_current().0;
        }
        None
    }

    /// Stops counting what was taken out.
    pub(super) fn settle(&mut self, removed: Removed) {
        self.len -= removed.mappings;
        self.invalid -= removed.invalid;
    }
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(vfio_type1_dmas)]
mod tests {
    use super::*;

    /// Pages from the first address on, of so many mappings.
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
    fn what_goes_counts_until_the_end() -> Result {
        let mut tree = tree()?;
        tree.set_vaddr(r(0, 0xfff), None);
        assert_eq!((tree.len(), tree.invalid()), (3, 1));
        let mut removed = Removed::default();
        let mut taken = 0;
        // What begins before the range stays.
        let rest = tree.remove_in(r(0x2000, u64::MAX), &mut removed, |_| {
            taken += 1;
            Ok(())
        });
        assert_eq!((taken, rest), (1, None));
        let rest = tree.remove_in(r(0, 0), &mut removed, |_| Ok(()));
        assert_eq!(rest, None);
        assert_eq!((tree.len(), tree.invalid()), (3, 1));
        tree.settle(removed);
        assert_eq!((tree.len(), tree.invalid()), (1, 0));
        assert_eq!(tree.first_in(Range::ALL), Some(r(0x1000, 0x3fff)));
        Ok(())
    }

    #[test]
    fn pages_that_nobody_takes_stay() -> Result {
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
        tree.settle(removed);
        assert_eq!(tree.len(), 1);
        tree.for_each_in(Range::ALL, |_, dma| {
            assert!(dma.pages().is_some());
            true
        });
        Ok(())
    }

    #[test]
    fn addresses_of_programs() {
        for address in [0, 0x1000, usize::MAX & !0xfff] {
            assert_eq!(Vaddr::new(address).get(), address);
        }
        assert_eq!(size_of::<Option<Vaddr>>(), size_of::<usize>());
    }
}
