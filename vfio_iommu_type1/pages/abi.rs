// SPDX-License-Identifier: GPL-2.0

//! Creating and extending mappings. The safety of both depends on one rule: the mappings of a
//! container do not overlap.
//!
//! Pages for a range are created only while the range is locked and nothing is mapped in it.
//! Before the range is unlocked, they are either inserted into the tree or dropped. The types do
//! not enforce all of this: the callers keep the contracts that are written here.

use kernel::{
    prelude::*,
    sync::Arc, //
};

use kernel_ext::{
    iommu::{
        Domains,
        Mapping,
        Prot, //
    },
    iova::Range,
    mm::Charge, //
};

use crate::{
    container::Container,
    space::{
        HeldMut,
        Vaddr,
        WholeGuard, //
    }, //
};

use super::DmaPages;

impl DmaPages {
    /// Creates the pages of a mapping at `range`, which the caller has locked. None is pinned yet.
    ///
    /// The only caller is `Container::check_map`. It keeps this contract, with `Container::map`:
    ///
    /// - This is called once for `range` while it is locked.
    /// - At most the size of `range` is pinned and mapped.
    /// - The pages are inserted into the tree, or dropped, before the range is unlocked.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the range is not locked; `EEXIST` if something is mapped in it.
    pub(crate) fn new(
        held: &HeldMut<'_, Container>,
        range: Range,
        prot: Prot,
        charge: Charge,
    ) -> Result<Self> {
        if !held.range().contains(range) {
            return Err(EINVAL);
        }
        if held.dmas().first_in(range).is_some() {
            return Err(EEXIST);
        }
        let domains = held.layout.set.clone();
        // SAFETY: The mappings of a container do not overlap, as described at the top of this
        // file: none in the tree overlaps the range, and by the contract of this function no pages
        // outside of the tree do. By the same contract the mapping is confined to the locked range
        // while it is not in the tree. The domains are those of the container, in which nobody else
        // maps.
        let mapping = unsafe { Mapping::new(domains, range.start, prot) };
        Ok(Self {
            mapping,
            tracked: None,
            charge,
        })
    }
}

/// Maps all existing mappings in the domains `new`, and calls `then` for each mapping.
///
/// The only caller is `replay`. It keeps this contract:
///
/// - `new` consists of the domains of the container of `whole`, and one that was allocated for the
///   group that is being attached to this container.
/// - `then` maps at most the size of the range that it is called with, and only in a mapping that
///   is empty.
///
/// # Errors
///
/// Those of [`Mapping::extend`] and of `then`.
pub(crate) fn extend_all(
    whole: &mut WholeGuard<'_, Container>,
    new: &Arc<Domains>,
    mut then: impl FnMut(Range, Option<Vaddr>, &mut DmaPages) -> Result,
) -> Result {
    whole.try_update(Range::ALL, |range, vaddr, pages| {
        // SAFETY: The mappings of a container do not overlap, as described at the top of this
        // file. By the contract of this function only this container maps in the new domain, and
        // its whole address space is locked.
        unsafe { pages.mapping.extend(new) }?;
        then(range, vaddr, pages)
    })
}
