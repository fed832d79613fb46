// SPDX-License-Identifier: GPL-2.0

//! What is mapped in a container, by address.

use kernel::{
    page::PAGE_MASK,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNodeReservation, //
    },
};

use iommu_group::ranges::Range;

use kernel_ext::{
    iommu::Mapping,
    mm::{
        Charge,
        Released, //
    }, //
};

use crate::{
    bitmap::Dirty,
    pins::Pins, //
};

/// One successful `VFIO_IOMMU_MAP_DMA`, or one that is under way.
///
/// There may be tens of thousands, so it is kept small.
pub(crate) struct Map {
    /// The address in the program's memory, a multiple of the page size, and marks in the bits below.
    address: usize,
    contents: Contents,
}

/// A node of the tree, with three pointers and the key, fits the memory that the kernel's own takes.
const _: () = assert!(size_of::<Map>() + 32 <= 96);

/// What a map consists of.
enum Contents {
    /// The pages are here.
    Here(Body),
    /// Somebody works on the pages without the container's lock.
    Away {
        /// The first device address.
        start: u64,
    },
}

/// The mark that the program withdrew the address, to give another one later.
const WITHDRAWN: usize = 1;

/// The mark that an unmap has chosen the map.
const DOOMED: usize = 2;

/// The pages of a map. Dropping it unmaps, unpins and uncharges, in this order, and may take long.
pub(crate) struct Body {
    /// What the IOMMU sees; empty if the container has no IOMMU.
    pub(crate) mapping: Mapping,
    /// What drivers of devices without an IOMMU use.
    external: Option<KBox<External>>,
    /// What the program's process is charged with.
    pub(crate) charge: Charge,
}

/// What drivers of devices without an IOMMU, and the kernel, do with a map.
#[derive(Default)]
struct External {
    pins: Pins,
    /// The pages that were written, but for those in `pins`.
    dirty: Dirty,
}

impl Body {
    /// The pages of a new map.
    pub(crate) fn new(mapping: Mapping, charge: Charge) -> Self {
        Self {
            mapping,
            external: None,
            charge,
        }
    }

    /// Which pages were written, but for those that are pinned.
    pub(crate) fn dirty(&self) -> &Dirty {
        self.external
            .as_ref()
            .map_or(&Dirty::Clean, |external| &external.dirty)
    }

    /// Sets which pages were written. Without memory to note it they count as clean.
    pub(crate) fn set_dirty(&mut self, dirty: Dirty) {
        if let Some(external) = &mut self.external {
            external.dirty = dirty;
        } else if !matches!(dirty, Dirty::Clean) {
            let pins = Pins::default();
            self.external = KBox::new(External { pins, dirty }, GFP_KERNEL_ACCOUNT).ok();
        }
    }

    /// Adds `count` written pages from `first` on; the map has `pages` pages.
    pub(crate) fn add_dirty(&mut self, first: u64, count: u64, pages: u64) {
        if self.external.is_none() {
            self.external = KBox::new(External::default(), GFP_KERNEL_ACCOUNT).ok();
        }
        if let Some(external) = &mut self.external {
            external.dirty.add(first, count, pages);
        }
    }

    /// Takes one user off each of `count` pages from `first` on that drivers have pinned, and notes as
    /// written those that have none then, if `track` says how many pages the map has. Takes these off
    /// what is charged if `charges`.
    pub(crate) fn release_pins(
        &mut self,
        first: u64,
        count: u64,
        track: Option<u64>,
        charges: bool,
    ) {
        let mut released = Released::default();
        if let Some(external) = &mut self.external {
            let External { pins, dirty } = &mut **external;
            pins.release(first, count, &mut released, |nth, bits| {
                if let Some(pages) = track {
                    dirty.add_word(nth, bits, pages);
                }
            });
        }
        let charged = released.finish();
        if charges {
            self.charge.sub(charged);
        }
    }

    /// The pages that drivers have pinned, if any ever were.
    pub(crate) fn pins_mut(&mut self) -> Option<&mut Pins> {
        self.external.as_mut().map(|external| &mut external.pins)
    }

    /// The pages that drivers have pinned, to add some.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn make_pins(&mut self) -> Result<&mut Pins> {
        if self.external.is_none() {
            self.external = Some(KBox::new(External::default(), GFP_KERNEL_ACCOUNT)?);
        }
        self.pins_mut().ok_or(ENOMEM)
    }

    /// The pages that drivers have pinned, if there are any.
    pub(crate) fn pins(&self) -> Option<&Pins> {
        let pins = self.external.as_ref().map(|external| &external.pins);
        pins.filter(|pins| !pins.is_empty())
    }

    /// Takes the pages out of the IOMMU; those that drivers have pinned stay, and stay charged.
    pub(crate) fn unmap(&mut self) {
        self.mapping.clear();
        let kept = self.pins().map_or(0, Pins::charged);
        self.charge.sub(self.charge.pages().saturating_sub(kept));
    }

    /// Takes in the pages of the map that follows, so that all of them go by one request.
    ///
    /// # Errors
    ///
    /// `next`, if they have to go one by one.
    pub(crate) fn join(&mut self, next: Self) -> Result<(), Self> {
        if next.external.is_some() || !self.charge.has_owner_of(&next.charge) {
            return Err(next);
        }
        let Self {
            mapping,
            external,
            charge,
        } = next;
        match self.mapping.join(mapping) {
            Ok(()) => {
                self.charge.join(charge);
                Ok(())
            }
            Err(mapping) => Err(Self {
                mapping,
                external,
                charge,
            }),
        }
    }
}

impl Map {
    /// A map of which the pages are being collected.
    pub(crate) fn new(start: u64, vaddr: usize) -> Self {
        Self {
            address: vaddr & PAGE_MASK,
            contents: Contents::Away { start },
        }
    }

    /// The first device address.
    fn start(&self) -> u64 {
        match &self.contents {
            Contents::Here(body) => body.mapping.iova(),
            Contents::Away { start } => *start,
        }
    }

    /// The address in the program's memory.
    pub(crate) fn vaddr(&self) -> usize {
        self.address & PAGE_MASK
    }

    /// Whether the program withdrew the address.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.address & WITHDRAWN != 0
    }

    /// Withdraws the address.
    pub(crate) fn withdraw(&mut self) {
        self.address |= WITHDRAWN;
    }

    /// Gives the map an address, a multiple of the page size, in place of the one that was withdrawn.
    pub(crate) fn set_vaddr(&mut self, vaddr: usize) {
        self.address = vaddr & PAGE_MASK | self.address & DOOMED;
    }

    /// Whether an unmap has chosen this map.
    pub(crate) fn is_doomed(&self) -> bool {
        self.address & DOOMED != 0
    }

    /// Says whether an unmap has chosen this map.
    pub(crate) fn set_doomed(&mut self, doomed: bool) {
        self.address = self.address & !DOOMED | if doomed { DOOMED } else { 0 };
    }

    /// The pages, unless somebody works on them.
    pub(crate) fn body(&self) -> Option<&Body> {
        match &self.contents {
            Contents::Here(body) => Some(body),
            Contents::Away { .. } => None,
        }
    }

    /// Takes the pages out, unless somebody else has.
    pub(crate) fn take_body(&mut self) -> Option<Body> {
        let start = self.start();
        match core::mem::replace(&mut self.contents, Contents::Away { start }) {
            Contents::Here(body) => Some(body),
            Contents::Away { .. } => None,
        }
    }

    /// Puts the pages back.
    pub(crate) fn put_body(&mut self, body: Body) {
        self.contents = Contents::Here(body);
    }

    /// Whether somebody is working on it, so that all others have to wait.
    pub(crate) fn is_busy(&self) -> bool {
        self.body().is_none() || self.is_doomed()
    }
}

/// The addresses of a map, given its entry in the tree.
fn place((&last, map): (&u64, &Map)) -> Range {
    Range {
        start: map.start(),
        last,
    }
}

/// The maps of a container. They don't overlap, so that each is found by its last address.
pub(crate) struct Maps(RBTree<u64, Map>);

/// Memory for one more map.
pub(crate) type Reservation = RBTreeNodeReservation<u64, Map>;

impl Maps {
    /// No maps.
    pub(crate) fn new() -> Self {
        Self(RBTree::new())
    }

    /// Where the first map is that has an address in `range`.
    pub(crate) fn first_in(&self, range: Range) -> Option<Range> {
        let cursor = self.0.cursor_lower_bound(&range.start)?;
        Some(place(cursor.current())).filter(|found| found.overlaps(range))
    }

    /// Calls `f` for each map that has an address in `range`, until it returns `false`.
    pub(crate) fn for_each_in(&self, range: Range, mut f: impl FnMut(Range, &Map) -> bool) {
        let mut start = range.start;
        // A cursor that doesn't change the tree can't be moved.
        while let Some(cursor) = self.0.cursor_lower_bound(&start) {
            let (last, map) = cursor.current();
            let found = place((last, map));
            if !found.overlaps(range) || !f(found, map) || found.last == u64::MAX {
                return;
            }
            start = found.last + 1;
        }
    }

    /// As [`for_each_in`](Self::for_each_in), to change the maps.
    pub(crate) fn for_each_in_mut(
        &mut self,
        range: Range,
        mut f: impl FnMut(Range, &mut Map) -> bool,
    ) {
        let mut next = self.0.cursor_lower_bound_mut(&range.start);
        while let Some(mut cursor) = next {
            let (last, map) = cursor.current_mut();
            let found = place((last, &*map));
            if !found.overlaps(range) || !f(found, map) {
                return;
            }
            next = cursor.move_next();
        }
    }

    /// The map that ends with address `last`.
    pub(crate) fn get_mut(&mut self, last: u64) -> Option<&mut Map> {
        self.0.get_mut(&last)
    }

    /// Enters `map`, which ends with address `last` and overlaps no other.
    pub(crate) fn insert(&mut self, last: u64, map: Map, memory: Reservation) {
        self.0.insert(memory.into_node(last, map));
    }

    /// Takes out all maps that lie in `range`, and passes them to `f`.
    pub(crate) fn remove_in(&mut self, range: Range, mut f: impl FnMut(Map)) {
        let mut next = self.0.cursor_lower_bound_mut(&range.start);
        while let Some(cursor) = next {
            if !range.contains(place(cursor.current())) {
                return;
            }
            let (rest, node) = cursor.remove_current();
            f(node.to_key_value().1);
            next = rest;
        }
    }
}
