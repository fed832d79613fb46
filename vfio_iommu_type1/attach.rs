// SPDX-License-Identifier: GPL-2.0

//! Groups of devices come and go.

use kernel::{
    prelude::*,
    sync::Arc,
    warn_on, //
};

use iommu_group::ranges::{
    Range,
    Ranges, //
};

use kernel_ext::{
    iommu::{
        Attachment,
        Domain,
        Group,
        ReservedKind,
        ReservedRegion, //
    },
    iommu_driver::GroupKind,
    mm::may_warn, //
};

use crate::{
    bitmap::Dirty,
    container::{
        Container,
        Exclusive,
        GroupDomain,
        Guard,
        Member, //
    },
    populate::populate,
    ALLOW_UNSAFE_INTERRUPTS, //
};

impl Container {
    /// Puts a group behind the address space, with everything that is mapped.
    ///
    /// # Errors
    ///
    /// `EBUSY` while an address is withdrawn; `EINVAL` if the group is here already, or can't translate
    /// what is mapped; `EPERM` if its devices could raise any interrupt; those of pinning and of the
    /// IOMMU. Then the group is where it was.
    pub(crate) fn attach(&self, group: &Group, kind: GroupKind) -> Result {
        let exclusive = self.exclusive();
        let state = exclusive.lock();
        if state.vaddr_invalid != 0 {
            return Err(EBUSY);
        }
        if state.has_group(group) {
            return Err(EINVAL);
        }
        drop(state);
        if kind != GroupKind::Emulated {
            return exclusive.attach_translated(group);
        }
        let mut state = exclusive.lock();
        state.emulated.push(group.into(), GFP_KERNEL_ACCOUNT)?;
        Ok(())
    }

    /// Takes a group out of the address space. With the last one everything that is mapped goes.
    pub(crate) fn detach(&self, group: &Group) {
        let exclusive = self.exclusive();
        let mut state = exclusive.lock();
        let place = state.emulated.iter().position(|other| **other == *group);
        let Some(place) = place else {
            drop(state);
            return exclusive.detach_translated(group);
        };
        let removed = state.emulated.remove(place);
        let last = state.emulated.is_empty() && !state.has_iommu();
        drop(state);
        drop(removed);
        if last {
            exclusive.remove_all();
        }
    }
}

/// The addresses of `regions` that must not be mapped.
fn holes(regions: &[ReservedRegion]) -> impl Iterator<Item = Range> + '_ {
    regions
        .iter()
        .filter(|region| region.kind != ReservedKind::DirectRelaxable)
        .filter_map(|region| Range::of_size(region.start, region.length).ok())
}

/// Where software put the messages to the interrupt controller, if the IOMMU translates those.
fn software_msi(regions: &[ReservedRegion]) -> Option<u64> {
    if regions
        .iter()
        .any(|region| region.kind == ReservedKind::Msi)
    {
        return None;
    }
    regions
        .iter()
        .rfind(|region| region.kind == ReservedKind::SoftwareMsi)
        .map(|region| region.start)
}

/// The addresses that `domain` translates.
fn aperture(domain: &Domain) -> Range {
    let (start, last) = domain.aperture();
    Range { start, last }
}

/// Checks that a group which translates `aperture`, less `regions`, can take part in what is mapped.
fn check_fits(state: &Guard<'_>, aperture: Range, regions: &[ReservedRegion]) -> Result {
    if let Some(span) = state.ranges.span() {
        if !span.overlaps(aperture) {
            return Err(EINVAL);
        }
        let below = (span.start < aperture.start).then(|| Range {
            start: span.start,
            last: aperture.start - 1,
        });
        let above = (aperture.last < span.last).then(|| Range {
            start: aperture.last + 1,
            last: span.last,
        });
        for outside in [below, above].into_iter().flatten() {
            if state.maps.first_in(outside).is_some() {
                return Err(EINVAL);
            }
        }
    }
    if holes(regions).any(|hole| state.maps.first_in(hole).is_some()) {
        return Err(EINVAL);
    }
    Ok(())
}

impl Exclusive<'_> {
    /// Attaches a group with an IOMMU.
    fn attach_translated(&self, group: &Group) -> Result {
        let domain = Arc::new(Domain::alloc(group)?, GFP_KERNEL_ACCOUNT)?;
        let attachment = Domain::attach(domain.clone(), group)?;
        let regions = group.reserved_regions()?;
        let aperture = aperture(&domain);
        let state = self.lock();
        check_fits(&state, aperture, &regions)?;
        let ranges = state.ranges.restricted(aperture, holes(&regions))?;
        drop(state);
        if !ALLOW_UNSAFE_INTERRUPTS.get() && !group.has_isolated_msi() {
            if may_warn() {
                pr_warn!(
                    "group {}: no interrupt remapping, so its devices could raise any interrupt; if you trust the program, set the module's parameter allow_unsafe_interrupts\n",
                    group.id(),
                );
            }
            return Err(EPERM);
        }
        domain.enforce_coherency();
        if let Some(attachment) = self.join(group, attachment)? {
            self.add_domain(attachment, software_msi(&regions))?;
        }
        self.lock().ranges = ranges;
        Ok(())
    }

    /// Moves the group from its own domain to one of the container's, if one is like it.
    ///
    /// Returns the attachment to its own domain, if none is.
    fn join(&self, group: &Group, attachment: Attachment) -> Result<Option<Attachment>> {
        let own = attachment.domain().clone();
        let count = self.lock().domains.len();
        let mut attachment = Some(attachment);
        for nth in 0..count {
            let state = self.lock();
            let Some(domain) = state.domains.get(nth).map(|d| d.domain.clone()) else {
                break;
            };
            drop(state);
            if !domain.is_like(&own) {
                continue;
            }
            // The group has to leave the one before it can enter the other.
            drop(attachment.take());
            match Domain::attach(domain, group) {
                Ok(joined) => {
                    let mut state = self.lock();
                    if let Some(place) = state.domains.get_mut(nth) {
                        place.groups.push(Member::new(joined), GFP_KERNEL_ACCOUNT)?;
                    }
                    return Ok(None);
                }
                Err(_) => attachment = Some(Domain::attach(own.clone(), group)?),
            }
        }
        Ok(attachment)
    }

    /// Adds the domain that a group was attached to, and maps everything there.
    fn add_domain(&self, attachment: Attachment, msi: Option<u64>) -> Result {
        let domain = attachment.domain().clone();
        let mut groups = KVec::with_capacity(1, GFP_KERNEL_ACCOUNT)?;
        groups.push(Member::new(attachment), GFP_KERNEL_ACCOUNT)?;
        let old = self.lock().set.clone();
        let new = old.with(&domain)?;
        let replayed = self.for_each_body(|range, vaddr, body| {
            let was_empty = body.mapping.is_empty();
            // Only the process whose memory it is can pin it here.
            if was_empty && !body.charge.owner().is_current() {
                return Err(EPERM);
            }
            body.mapping.move_to(&new)?;
            if was_empty {
                let size = range.last - range.start + 1;
                populate(&mut body.mapping, &mut body.charge, vaddr, size)
                    .inspect_err(|_| body.unmap())?;
            }
            Ok(())
        });
        let reserved =
            replayed.and_then(|()| msi.map_or(Ok(true), |base| domain.reserve_msi(base)));
        let added = reserved.and_then(|_| {
            let mut state = self.lock();
            state
                .domains
                .push(GroupDomain { groups, domain }, GFP_KERNEL_ACCOUNT)?;
            state.set = new.clone();
            Ok(())
        });
        if let Err(e) = added {
            // The closure doesn't fail: everything is mapped in the old domains.
            let _ = self.for_each_body(|_, _, body| {
                if old.is_empty() {
                    body.unmap();
                }
                body.mapping.move_to(&old)
            });
            return Err(e);
        }
        Ok(())
    }

    /// Detaches a group with an IOMMU.
    fn detach_translated(&self, group: &Group) {
        let mut state = self.lock();
        let mut found = None;
        for (nth, domain) in state.domains.iter_mut().enumerate() {
            if let Some(place) = domain.position(group) {
                if let Ok(member) = domain.groups.remove(place) {
                    found = Some((nth, member, domain.groups.is_empty()));
                }
                break;
            }
        }
        let tracks_dirty = state.tracks_dirty;
        drop(state);
        let Some((nth, member, last_group)) = found else {
            return;
        };
        let wrote_anywhere = !member.pins;
        drop(member);
        let mut span = self.lock().ranges.span();
        if last_group {
            span = Some(self.remove_domain(nth));
        }
        if tracks_dirty && wrote_anywhere {
            // What it wrote is only known now, as long as it was here everything counted as dirty.
            let _ = self.for_each_body(|_, _, body| {
                body.set_dirty(Dirty::All);
                Ok(())
            });
        }
        // Should memory be short, the ranges stay as they are, which is too narrow at worst.
        if let Some(Ok(ranges)) = span.map(|span| self.ranges_in(span)) {
            self.lock().ranges = ranges;
        }
    }

    /// Removes a domain that no group is attached to. Returns what the others translate.
    ///
    /// What is mapped there needs not be unmapped: it goes with the domain's page tables.
    fn remove_domain(&self, nth: usize) -> Range {
        let mut state = self.lock();
        let removed = state.domains.remove(nth).ok();
        let set = state.set.clone();
        let last = !state.has_iommu();
        let emulated = !state.emulated.is_empty();
        drop(state);
        if let Some(removed) = &removed {
            warn_on!(removed.domain.retire().is_err());
        }
        if last && emulated {
            // The closure doesn't fail.
            let _ = self.for_each_body(|_, _, body| {
                body.unmap();
                Ok(())
            });
        } else if last {
            self.remove_all();
        }
        if let Some(removed) = &removed {
            // Without memory for a new set the domain stays in the old one, which nobody minds.
            if let Ok(new) = set.without(&removed.domain) {
                // It doesn't fail, since the maps are in all domains of the new set already.
                let _ = self.for_each_body(|_, _, body| body.mapping.move_to(&new));
                self.lock().set = new;
            }
        }
        let state = self.lock();
        let mut span = Range::ALL;
        for domain in state.domains.iter() {
            let aperture = aperture(&domain.domain);
            span.start = span.start.max(aperture.start);
            span.last = span.last.min(aperture.last);
        }
        span
    }

    /// The addresses of `span` that no group reserves.
    fn ranges_in(&self, span: Range) -> Result<Ranges> {
        let mut regions = KVec::new();
        let mut groups = KVec::new();
        let state = self.lock();
        for member in state.domains.iter().flat_map(|d| d.groups.iter()) {
            groups.push(member.attachment.group_ref(), GFP_KERNEL)?;
        }
        drop(state);
        for group in groups.iter() {
            regions.extend_from_slice(&group.reserved_regions()?, GFP_KERNEL)?;
        }
        Ranges::build(span, holes(&regions))
    }
}
