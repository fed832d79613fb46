// SPDX-License-Identifier: GPL-2.0

//! Creating and extending mappings. The safety of both depends on one rule: the mappings of a
//! container do not overlap.
//!
//! The pages of a new mapping are part of a [`NewDma`], with the lock of its range, until they are
//! inserted into the tree. A mapping is confined to its range, because only this module calls
//! [`DmaPages::pin_map`].

use kernel::{
    prelude::*,
    sync::Arc, //
};

use kernel_ext::{
    iommu::{
        common_page_sizes,
        Domains,
        Mapping,
        NewDomain,
        Prot, //
    },
    iova::Range,
    mm::Charge, //
};

use crate::{
    container::{
        Container,
        Layout, //
    },
    error::RequestResult,
    space::{
        HeldMut,
        Reservation,
        Vacant,
        Vaddr,
        WholeGuard, //
    }, //
};

use super::{
    DmaPages,
    PinMapResult, //
};

/// A mapping that is not in the tree yet, and the lock of its range. Dropping it drops the pages, and
/// then unlocks the range.
///
/// # Invariants
///
/// `pages` are those of the range of `vacant`, in the domains of its container, and are the only
/// ones there.
pub(crate) struct NewDma<'a> {
    pages: DmaPages,
    vacant: Vacant<'a, Container>,
}

impl Container {
    /// Locks the range of a new mapping, as [`Space::lock_vacant`] does, and creates the mapping.
    /// None of its pages is pinned yet. `begin` returns what they are charged to.
    ///
    /// [`Space::lock_vacant`]: crate::space::Space::lock_vacant
    ///
    /// # Errors
    ///
    /// `EEXIST` if something is mapped there; those of `check` and `begin`; `EINTR` if the task is
    /// killed while it waits.
    pub(crate) fn new_dma<R>(
        &self,
        range: Range,
        whole: bool,
        prot: Prot,
        check: impl FnOnce(&Layout) -> RequestResult,
        begin: impl FnOnce(&mut HeldMut<'_, Self>) -> RequestResult<(Charge, R)>,
    ) -> RequestResult<(NewDma<'_>, R)> {
        let (vacant, (domains, charge, begun)) =
            self.space.lock_vacant(range, whole, check, |held| {
                let (charge, begun) = begin(held)?;
                Ok((held.layout.set.clone(), charge, begun))
            })?;
        // SAFETY: The mappings of a container do not overlap, as described at the top of this file:
        // nothing else is mapped in the range as long as it is vacant. The domains are those of the
        // container, in which nobody else maps.
        let mapping = unsafe { Mapping::new(domains, range.start, prot) };
        let pages = DmaPages {
            mapping,
            tracked: None,
            charge,
        };
        // INVARIANT: The pages were just created, once for this value.
        Ok((NewDma { pages, vacant }, begun))
    }
}

impl NewDma<'_> {
    /// Pins and maps the pages, as [`DmaPages::pin_map`] does.
    ///
    /// # Errors
    ///
    /// Those of [`DmaPages::pin_map`].
    pub(crate) fn pin_map(&mut self, vaddr: Vaddr, is_alone: bool) -> RequestResult<PinMapResult> {
        self.pages.pin_map(vaddr, self.vacant.size(), is_alone)
    }

    /// Allocates the memory for recording dirty pages.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn reserve_dirty(&mut self) -> Result {
        self.pages.reserve_dirty()
    }

    /// Inserts the mapping, as [`Vacant::insert`] does.
    pub(crate) fn insert(self, vaddr: Vaddr, memory: Reservation<DmaPages>, limit: usize) -> bool {
        self.vacant.insert(vaddr, self.pages, memory, limit)
    }
}

/// An existing mapping that was extended to a new domain.
pub(crate) struct Extended<'a> {
    /// The pages.
    pub(crate) pages: &'a mut DmaPages,
    /// The number of bytes.
    size: u64,
    /// The address in user memory, or `None` if it is invalid.
    vaddr: Option<Vaddr>,
}

impl Extended<'_> {
    /// Pins and maps the pages, as [`DmaPages::pin_map`] does. No other request of the container
    /// runs.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the vaddr is invalid; those of [`DmaPages::pin_map`].
    pub(crate) fn pin_map(&mut self) -> Result {
        let vaddr = self.vaddr.ok_or(EBUSY)?;
        self.pages.pin_map(vaddr, self.size, true)?;
        Ok(())
    }
}

/// Maps all existing mappings in `new`, too, and calls `then` for each mapping. Returns the domains
/// in which they are mapped then.
///
/// # Errors
///
/// `EINVAL` if the domains have no page size in common; those of [`Mapping::extend`] and of `then`.
/// Some mappings may be extended then.
pub(crate) fn extend_all(
    whole: &mut WholeGuard<'_, Container>,
    new: &NewDomain<'_>,
    mut then: impl FnMut(Extended<'_>) -> Result,
) -> Result<Arc<Domains>> {
    let present = whole.layout(|layout| layout.set.clone());
    let all = new.with(&present)?;
    if common_page_sizes(all.iter()) == 0 {
        return Err(EINVAL);
    }
    whole.try_update(Range::ALL, |range, vaddr, pages| {
        // SAFETY: The mappings of a container do not overlap, as described at the top of this
        // file. The domains are those of the container, whose whole address space is locked, and a
        // new one, in which nobody else maps.
        unsafe { pages.mapping.extend(&all) }?;
        let size = range.last - range.start + 1;
        then(Extended { pages, size, vaddr })
    })?;
    Ok(all)
}
