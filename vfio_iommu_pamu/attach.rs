// SPDX-License-Identifier: GPL-2.0

//! Groups of devices come and go.
//!
//! A device is known to the hardware by its LIODNs. Each of them is claimed, which shuts it off; then
//! it is given what is mapped, and only then let in. So it reaches nothing but that at any moment.

use kernel::{
    prelude::*,
    sync::ArcBorrow, //
};

use kernel_ext::{
    iommu::Group,
    iommu_driver::GroupKind, //
};

use crate::{
    abi::routes,
    container::{
        Container,
        Guard,
        Membership,
        State, //
    },
    firmware::liodns_of, //
};

/// The LIODNs of a group's devices, each once.
///
/// # Errors
///
/// `ENODEV` if one of the devices has none, or there is no device; `ENOMEM`.
fn liodns_of_group(group: &Group) -> Result<KVec<u32>> {
    let mut all: KVec<u32> = KVec::new();
    group.for_each_device(|device| {
        for number in liodns_of(device)? {
            if !all.contains(&number) {
                all.push(number, GFP_KERNEL_ACCOUNT)?;
            }
        }
        Ok(())
    })?;
    if all.is_empty() {
        return Err(ENODEV);
    }
    Ok(all)
}

/// Whether a group of the container has this LIODN.
fn is_member(state: &Guard<'_>, number: u32) -> bool {
    let has = |membership: &Membership| membership.liodns.contains(&number);
    state.groups.iter().any(has)
}

/// Takes the LIODNs of `numbers` out that no group has any more.
fn remove_unused(state: &mut Guard<'_>, numbers: &[u32]) {
    for &number in numbers {
        if !is_member(state, number) {
            routes::remove(number);
            state.devices.remove(number);
        }
    }
}

impl Container {
    /// Puts a group behind the address space, with everything that is mapped.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is here already, or what its devices do doesn't pass the PAMUs; `ENODEV` if a device
    /// has no LIODN, or one that the hardware hasn't; `EBUSY` if another container has one of them;
    /// `ENOSPC` if the tables have no room for the windows; `ENOMEM`. Then the group reaches nothing.
    pub(crate) fn attach(this: ArcBorrow<'_, Self>, group: &Group, kind: GroupKind) -> Result {
        let liodns = liodns_of_group(group)?;
        if kind != this.system.groups() {
            return Err(EINVAL);
        }
        let mut state = this.lock();
        if state.groups.iter().any(|present| *present.group == *group) {
            return Err(EINVAL);
        }
        state.groups.reserve(1, GFP_KERNEL_ACCOUNT)?;
        let attached = liodns
            .iter()
            .try_for_each(|&number| Self::attach_liodn(this, &mut state, number));
        if let Err(e) = attached {
            remove_unused(&mut state, &liodns);
            return Err(e);
        }
        let membership = Membership {
            group: group.into(),
            liodns,
        };
        state.groups.push(membership, GFP_KERNEL_ACCOUNT)?;
        Ok(())
    }

    /// Lets a LIODN in, unless it is in already.
    fn attach_liodn(this: ArcBorrow<'_, Self>, state: &mut Guard<'_>, number: u32) -> Result {
        if state.devices.get(number).is_some() {
            return Ok(());
        }
        let attributes = state.attributes();
        let State {
            space,
            devices,
            event,
            ..
        } = &mut **state;
        devices.add(number, space, attributes, event.clone())?;
        routes::add(number, this.into())
    }

    /// Takes a group out of the address space. With the last one everything that is mapped goes.
    pub(crate) fn detach(&self, group: &Group) {
        let mut state = self.lock();
        let same = |present: &Membership| *present.group == *group;
        let Some(place) = state.groups.iter().position(same) else {
            return;
        };
        let Ok(membership) = state.groups.remove(place) else {
            return;
        };
        remove_unused(&mut state, &membership.liodns);
        if state.groups.is_empty() {
            let State { space, devices, .. } = &mut *state;
            space.unmap_all(devices);
        }
    }
}
