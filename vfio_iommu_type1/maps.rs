// SPDX-License-Identifier: GPL-2.0

//! What is mapped in a container, by address.

use kernel::{
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNodeReservation, //
    },
};

use iommu_group::ranges::Range;

use kernel_ext::{
    iommu::{
        Mapping,
        Prot, //
    },
    mm::Charge, //
};

use crate::{
    bitmap::Dirty,
    pins::Pins, //
};

/// One successful `VFIO_IOMMU_MAP_DMA`, or one that is under way.
pub(crate) struct Map {
    /// The first device address.
    start: u64,
    /// The address in the program's memory.
    pub(crate) vaddr: usize,
    /// What devices may do.
    pub(crate) prot: Prot,
    /// Whether the program withdrew `vaddr`, to give another one later.
    pub(crate) vaddr_invalid: bool,
    /// Whether an unmap has chosen this one.
    pub(crate) doomed: bool,
    /// The pages; `None` while somebody works on them without the container's lock.
    pub(crate) body: Option<Body>,
}

/// The pages of a map. Dropping it unmaps, unpins and uncharges, in this order, and may take long.
pub(crate) struct Body {
    /// What the IOMMU sees; `None` if the container has no IOMMU.
    pub(crate) mapping: Option<Mapping>,
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
    pub(crate) fn new(mapping: Option<Mapping>, charge: Charge) -> Self {
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
        self.mapping = None;
        let kept = self.pins().map_or(0, Pins::charged);
        self.charge.sub(self.charge.pages().saturating_sub(kept));
    }
}

impl Map {
    /// A map of which the pages are being collected.
    pub(crate) fn new(start: u64, vaddr: usize, prot: Prot) -> Self {
        Self {
            start,
            vaddr,
            prot,
            vaddr_invalid: false,
            doomed: false,
            body: None,
        }
    }

    /// Whether somebody is working on it, so that all others have to wait.
    pub(crate) fn is_busy(&self) -> bool {
        self.body.is_none() || self.doomed
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

    /// The first map that has an address in `range`.
    pub(crate) fn first_in(&self, range: Range) -> Option<(Range, &Map)> {
        let cursor = self.0.cursor_lower_bound(&range.start)?;
        let (&last, map) = cursor.current();
        let found = Range {
            start: map.start,
            last,
        };
        if !found.overlaps(range) {
            return None;
        }
        // The cursor only borrows the tree, but ends with this function.
        Some((found, self.0.get(&last)?))
    }

    /// Calls `f` for each map that has an address in `range`, until it returns `false`.
    pub(crate) fn for_each_in(&self, range: Range, mut f: impl FnMut(Range, &Map) -> bool) {
        let mut left = range;
        while let Some((found, map)) = self.first_in(left) {
            if !f(found, map) || found.last >= range.last {
                return;
            }
            left.start = found.last + 1;
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
            let (&last, map) = cursor.current_mut();
            let found = Range {
                start: map.start,
                last,
            };
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

    /// Takes out the map that ends with address `last`.
    pub(crate) fn remove(&mut self, last: u64) -> Option<Map> {
        self.0.remove(&last)
    }
}
