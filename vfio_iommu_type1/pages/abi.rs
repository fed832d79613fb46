// SPDX-License-Identifier: GPL-2.0

//! Creating and extending mappings. The safety of both depends on one rule: the mappings of a
//! container do not overlap.
//!
//! The pages of a new mapping are part of a [`NewDma`], with the lock of its range, until they are
//! inserted into the tree. A mapping is confined to its range, because only this file calls
//! [`DmaPages::pin_map`], once for a mapping of which nothing is mapped.

use kernel::{
    prelude::*,
    sync::Arc, //
};

use kernel_ext::{
    iommu::{
        common_page_sizes,
        Attachment,
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
    /// Locks the range of a new mapping, as [`Space::lock_vacant`] does, and creates the mapping. If
    /// the container has an IOMMU, pins the calling process's memory at `vaddr`, and maps it there.
    /// `begin` returns what is charged for that.
    ///
    /// Returns `None` over the limit on locked memory, unless the whole container is locked: requests
    /// that run concurrently may have charged pages that they will uncharge again.
    ///
    /// [`Space::lock_vacant`]: crate::space::Space::lock_vacant
    ///
    /// # Errors
    ///
    /// `EEXIST` if something is mapped there; those of `check` and `begin`; `EINTR` if the task is
    /// killed while it waits; those of [`DmaPages::pin_map`].
    pub(crate) fn new_dma<R>(
        &self,
        range: Range,
        whole: bool,
        prot: Prot,
        vaddr: Vaddr,
        check: impl FnOnce(&Layout) -> RequestResult,
        begin: impl FnOnce(&mut HeldMut<'_, Self>) -> RequestResult<(Charge, R)>,
    ) -> RequestResult<Option<(NewDma<'_>, R)>> {
        let (vacant, (domains, has_iommu, charge, begun)) =
            self.space.lock_vacant(range, whole, check, |held| {
                let (charge, begun) = begin(held)?;
                let layout = held.layout;
                Ok((layout.set.clone(), layout.has_iommu(), charge, begun))
            })?;
        // SAFETY: The mappings of a container do not overlap, as described at the top of this file:
        // nothing else is mapped in the range as long as it is vacant. The domains are those of the
        // container, in which nobody else maps.
        let mapping = unsafe { Mapping::new(domains, range.start, prot) };
        // Dropped before `vacant`, so that the range stays locked until nothing is mapped there.
        let mut pages = DmaPages {
            mapping,
            tracked: None,
            charge,
        };
        if has_iommu && pages.pin_map(vaddr, vacant.size(), whole)? == PinMapResult::OverLimit {
            return Ok(None);
        }
        // INVARIANT: The pages were just created, once for this value.
        Ok(Some((NewDma { pages, vacant }, begun)))
    }
}

impl NewDma<'_> {
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

/// Maps all existing mappings in `new`, too. If the container had no domain before, their memory is
/// pinned here. Returns the attachment of the group to the domain, and the domains in which
/// everything is mapped then.
///
/// # Errors
///
/// `EINVAL` if the domains have no page size in common; `EPERM` if memory of another process would
/// have to be pinned; `EBUSY` if a vaddr is invalid; those of [`Mapping::extend`] and
/// [`DmaPages::pin_map`]. Some mappings may be extended then.
pub(crate) fn extend_all(
    whole: &mut WholeGuard<'_, Container>,
    new: NewDomain<'_>,
) -> Result<(Attachment, Arc<Domains>)> {
    let present = whole.layout(|layout| layout.set.clone());
    let (attachment, all) = new.with(&present)?;
    if common_page_sizes(all.iter()) == 0 {
        return Err(EINVAL);
    }
    whole.try_update(Range::ALL, |range, vaddr, pages| {
        // SAFETY: The mappings of a container do not overlap, as described at the top of this
        // file. The domains are those of the container, whose whole address space is locked, and a
        // new one, in which nobody else maps.
        unsafe { pages.mapping.extend(&all) }?;
        if !pages.mapping.is_empty() {
            return Ok(());
        }
        // Only the process that owns the memory can pin it here.
        if !pages.charge.owner().is_current() {
            return Err(EPERM);
        }
        let vaddr = vaddr.ok_or(EBUSY)?;
        let size = range.last - range.start + 1;
        // No other request of the container runs.
        let pinned = pages.pin_map(vaddr, size, true);
        pinned.inspect_err(|_| pages.unmap())?;
        Ok(())
    })?;
    Ok((attachment, all))
}
