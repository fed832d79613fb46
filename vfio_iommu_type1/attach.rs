// SPDX-License-Identifier: GPL-2.0

//! Attaching and detaching groups.

use kernel::{
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    },
    warn_on, //
};

use iommu_group::{
    ranges::Ranges,
    reserved_regions,
    ReservedKind,
    ReservedRegion, //
};

use kernel_ext::{
    array_vec::SmallVec,
    iommu::{
        ClaimedGroup,
        Domain,
        Group,
        NewDomain, //
    },
    iommu_driver::{
        GroupType,
        NewGroup, //
    },
    iova::Range,
    mm::may_warn, //
};

use crate::{
    container::{
        AttachedGroup,
        Container,
        GroupDomain, //
    },
    pages::extend_all,
    space::{
        Held,
        WholeGuard, //
    },
    ALLOW_UNSAFE_INTERRUPTS, //
};

/// The address space of a container, locked as a whole.
type Whole<'a> = WholeGuard<'a, Container>;

impl Container {
    /// Attaches a group to the address space and maps all existing mappings for it.
    ///
    /// # Errors
    ///
    /// `EBUSY` while a vaddr is invalid; `EINVAL` if the group is already attached, or cannot
    /// translate the existing mappings; `EPERM` if its devices could raise any interrupt, or if
    /// memory of another process would have to be pinned; those of pinning and of the IOMMU. On
    /// failure the group is where it was before.
    pub(crate) fn attach(&self, new: NewGroup<'_>) -> Result {
        let group = new.group();
        let mut whole = self.space.lock_all_killable(|held| {
            if held.dmas().invalid() != 0 {
                return Err(EBUSY);
            }
            if held.layout.has_group(group) {
                return Err(EINVAL);
            }
            Ok(())
        })?;
        if new.kind() != GroupType::Emulated {
            return attach_translated(&mut whole, new.claimed().ok_or(ENODEV)?);
        }
        whole.layout(|layout| layout.emulated.push(group.into(), GFP_KERNEL_ACCOUNT))?;
        Ok(())
    }
}

/// Attaches a group that has an IOMMU.
fn attach_translated(whole: &mut Whole<'_>, group: ClaimedGroup<'_>) -> Result {
    let mut domain = NewDomain::new(group)?;
    let regions = reserved_regions(&group)?;
    let aperture = aperture(&domain);
    let ranges = whole.with(|held| {
        check_mappings(held, aperture, &regions)?;
        held.layout
            .ranges
            .restricted(aperture, reserved_ranges(&regions))
    })?;
    if !ALLOW_UNSAFE_INTERRUPTS.get() && !group.has_isolated_msi() {
        if may_warn() {
            pr_warn!(
                "group {}: attach refused: no interrupt remapping, so its devices can raise any interrupt; if you trust the program, set the module parameter allow_unsafe_interrupts\n",
                group.id(),
            );
        }
        return Err(EPERM);
    }
    domain.enforce_coherency();
    match choose_domain(whole, domain)? {
        Chosen::Existing(nth, member) => {
            let added = whole.layout(|layout| {
                layout.add_group(nth, member)?;
                layout.ranges = ranges;
                Ok::<_, AttachedGroup>(())
            });
            added.map_err(|_not_added| ENOMEM)
        }
        Chosen::Own(domain) => add_domain(whole, domain, software_msi(&regions), ranges),
    }
}

/// The domain that a new group is attached to.
enum Chosen<'a> {
    /// The container's domain with this index.
    Existing(usize, AttachedGroup),
    /// A domain of its own.
    Own(NewDomain<'a>),
}

/// Moves the group from its own domain to a compatible domain of the container, if there is one.
fn choose_domain<'a>(whole: &mut Whole<'_>, mut own: NewDomain<'a>) -> Result<Chosen<'a>> {
    let mut nth = 0;
    while let Some(domain) =
        whole.layout(|layout| layout.domains.get(nth).map(|entry| entry.domain.clone()))
    {
        if domain.is_like(&own) {
            match own.instead(domain) {
                Ok(attachment) => return Ok(Chosen::Existing(nth, AttachedGroup::new(attachment))),
                Err(back) => own = back?,
            }
        }
        nth += 1;
    }
    Ok(Chosen::Own(own))
}

/// Adds the domain that a new group is attached to, and maps all existing mappings in it.
fn add_domain(
    whole: &mut Whole<'_>,
    domain: NewDomain<'_>,
    msi: Option<u64>,
    ranges: Ranges,
) -> Result {
    let old = whole.layout(|layout| layout.set.clone());
    let added = extend_all(whole, domain).and_then(|(attachment, new)| {
        let domain = attachment.domain().clone();
        // Not every IOMMU driver refuses to map addresses that the IOMMU does not translate.
        whole.with(|held| check_unmapped(held, outside(aperture(&domain), Range::ALL)))?;
        if let Some(base) = msi {
            domain.reserve_msi(base)?;
        }
        let mut groups = SmallVec::new();
        groups.push(AttachedGroup::new(attachment), GFP_KERNEL_ACCOUNT)?;
        let added = whole.layout(|layout| {
            layout.add_domain(GroupDomain { groups, domain })?;
            layout.set = new;
            layout.ranges = ranges;
            Ok::<_, GroupDomain>(())
        });
        added.map_err(|_not_added| ENOMEM)
    });
    if added.is_err() {
        whole.update(Range::ALL, |_, _, pages| pages.shrink(&old));
    }
    added
}

impl Container {
    /// Detaches a group from the address space. If it is the last group, removes all mappings.
    pub(crate) fn detach(&self, group: &Group) {
        let mut whole = self.space.lock_all();
        let (emulated, last) = whole.layout(|layout| {
            let mut groups = layout.emulated.iter();
            let place = groups.position(|other| **other == *group);
            let removed = place.and_then(|place| layout.emulated.remove(place));
            (removed, layout.emulated.is_empty() && !layout.has_iommu())
        });
        if emulated.is_none() {
            detach_translated(&mut whole, group);
        } else if last {
            remove_all(&mut whole);
        }
    }
}

/// Detaches a group that has an IOMMU.
fn detach_translated(whole: &mut Whole<'_>, group: &Group) {
    let found = whole.layout(|layout| {
        let mut domains = layout.domains.iter().enumerate();
        domains
            .find_map(|(nth, entry)| Some((nth, entry.position(group)?, entry.groups.len() == 1)))
    });
    let Some((nth, place, last_group)) = found else {
        return;
    };
    let ranges = usable_ranges(whole, group, last_group);
    let (removed, dirty_page_tracking) = whole.layout(|layout| {
        // On an error the ranges do not change. At worst they are narrower than necessary.
        if let Ok(Some(ranges)) = ranges {
            layout.ranges = ranges;
        }
        let removed = layout.remove_group(nth, place);
        (removed, layout.dirty_page_tracking)
    });
    let Some((member, domain)) = removed else {
        return;
    };
    let pinned_page_dirty_scope = member.pinned_page_dirty_scope.load(Relaxed);
    drop(member);
    if let Some(entry) = domain {
        retire_domain(whole, &entry.domain);
    }
    if dirty_page_tracking && !pinned_page_dirty_scope {
        // While this group was attached, all pages counted as dirty. Record that now, because
        // nothing else tells which pages the group has written.
        whole.update(Range::ALL, |_, _, pages| pages.set_all_dirty());
    }
}

/// Removes a domain that no group is attached to from the mappings.
///
/// The mappings need not be unmapped: they are freed with the domain's page tables.
fn retire_domain(whole: &mut Whole<'_>, domain: &Arc<Domain>) {
    let (old, last, emulated) = whole.layout(|layout| {
        let last = !layout.has_iommu();
        (layout.set.clone(), last, !layout.emulated.is_empty())
    });
    warn_on!(domain.retire().is_err());
    if last && !emulated {
        remove_all(whole);
    }
    // If there is no memory for a new set, the retired domain stays in the old one and is ignored.
    let new = old.without(domain).unwrap_or(old);
    whole.update(Range::ALL, |_, _, pages| pages.shrink(&new));
    whole.layout(|layout| layout.set = new);
}

/// Removes every mapping.
fn remove_all(whole: &mut Whole<'_>) {
    let mut rest = Some(Range::ALL);
    while let Some(range) = rest {
        let (pages, others) = whole.with(|held| held.remove_some(range));
        drop(pages);
        rest = others;
    }
}

/// Computes the addresses that are usable without the group `leaving`, and without those that the
/// other groups reserve: from the intersection of the apertures of their domains if `expand`, else
/// from the span of the addresses that are usable now. Returns `None` if there is no restriction.
///
/// # Errors
///
/// `ENOMEM`; `EINVAL` if no address is usable.
fn usable_ranges(whole: &mut Whole<'_>, leaving: &Group, expand: bool) -> Result<Option<Ranges>> {
    let mut groups = KVec::new();
    let span = whole.layout(|layout| {
        let mut span = Range::ALL;
        for entry in layout.domains.iter() {
            let members = entry.groups.iter().map(|member| &member.attachment);
            let mut staying = members
                .filter(|member| member.group() != leaving)
                .peekable();
            if staying.peek().is_none() {
                continue;
            }
            let aperture = aperture(&entry.domain);
            span.start = span.start.max(aperture.start);
            span.last = span.last.min(aperture.last);
            for member in staying {
                groups.push(member.group_ref(), GFP_KERNEL)?;
            }
        }
        let narrow = layout.ranges.span();
        Ok::<_, Error>(if expand { Some(span) } else { narrow })
    })?;
    let mut regions = KVec::new();
    for group in groups.iter() {
        regions.extend_from_slice(&reserved_regions(group)?, GFP_KERNEL)?;
    }
    span.map(|span| Ranges::build(span, reserved_ranges(&regions)))
        .transpose()
}

/// Checks that all existing mappings lie in `aperture` and outside `regions`.
fn check_mappings(
    held: &Held<'_, Container>,
    aperture: Range,
    regions: &[ReservedRegion],
) -> Result {
    if let Some(span) = held.layout.ranges.span() {
        if !span.overlaps(aperture) {
            return Err(EINVAL);
        }
        check_unmapped(held, outside(aperture, span))?;
    }
    check_unmapped(held, reserved_ranges(regions))
}

/// Checks that nothing is mapped in any of `ranges`.
///
/// # Errors
///
/// `EINVAL`.
fn check_unmapped(held: &Held<'_, Container>, mut ranges: impl Iterator<Item = Range>) -> Result {
    if ranges.any(|range| held.dmas().first_in(range).is_some()) {
        return Err(EINVAL);
    }
    Ok(())
}

/// Returns the parts of `span` below and above `aperture`, which overlaps it.
fn outside(aperture: Range, span: Range) -> impl Iterator<Item = Range> {
    let below = (span.start < aperture.start).then(|| Range {
        start: span.start,
        last: aperture.start - 1,
    });
    let above = (aperture.last < span.last).then(|| Range {
        start: aperture.last + 1,
        last: span.last,
    });
    [below, above].into_iter().flatten()
}

/// Returns the addresses of `regions` that must not be mapped.
fn reserved_ranges(regions: &[ReservedRegion]) -> impl Iterator<Item = Range> + '_ {
    regions
        .iter()
        .filter(|region| region.kind != ReservedKind::DirectRelaxable)
        .filter_map(|region| Range::of_size(region.start, region.length).ok())
}

/// Returns the base of the software-managed MSI window, or `None` if there is none or the hardware
/// has its own.
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

/// Returns the addresses that `domain` translates.
fn aperture(domain: &Domain) -> Range {
    let (start, last) = domain.aperture();
    Range { start, last }
}
