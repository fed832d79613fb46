// SPDX-License-Identifier: GPL-2.0

//! Attaching and detaching of groups.
//!
//! The hardware identifies a device by its LIODNs. Attaching claims each LIODN, which blocks it,
//! then sets the windows that are mapped, and only then enables the LIODN. So the device never
//! reaches other memory.

use kernel::{
    prelude::*,
    sync::ArcBorrow, //
};

use kernel_ext::{
    iommu::Group,
    iommu_driver::GroupType,
    vec_slot::VecSlot, //
};

use crate::firmware::liodns_of;

use super::{
    abi::{
        clear_container,
        set_container, //
    },
    AttachedGroup,
    Container,
    ContainerState,
    Guard, //
};

/// Returns the LIODNs of a group's devices, without duplicates.
///
/// # Errors
///
/// `ENODEV` if a device has no LIODN, or the group has no device; `ENOMEM`.
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

/// Returns whether a group of the container has this LIODN.
fn is_member(state: &Guard<'_>, number: u32) -> bool {
    let has = |attached: &AttachedGroup| attached.liodns.contains(&number);
    state.groups.iter().any(has)
}

impl Container {
    /// Attaches a group to the address space, with all existing mappings.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the group is attached already, or if the PAMUs don't translate its devices;
    /// `ENODEV` if a device has no LIODN, or one that the hardware doesn't have; `EBUSY` if another
    /// container has one of the LIODNs; `ENOSPC` if the tables have no room for the windows;
    /// `ENOMEM`. An error changes nothing.
    pub(crate) fn attach(this: ArcBorrow<'_, Self>, group: &Group, kind: GroupType) -> Result {
        let liodns = liodns_of_group(group)?;
        if kind != this.system.groups() {
            return Err(EINVAL);
        }
        let mut state = this.lock();
        if state.groups.iter().any(|present| *present.group == *group) {
            return Err(EINVAL);
        }
        Self::attach_liodns(this, &mut state, &liodns)?;
        match VecSlot::new(&mut state.groups, GFP_KERNEL_ACCOUNT) {
            Ok(slot) => slot.fill(AttachedGroup {
                group: group.into(),
                liodns,
            }),
            Err(e) => {
                this.remove_unused(&mut state, &liodns);
                return Err(e);
            }
        }
        Ok(())
    }

    /// Adds and enables LIODNs, except for those that the container has already. An error changes
    /// nothing.
    fn attach_liodns(this: ArcBorrow<'_, Self>, state: &mut Guard<'_>, numbers: &[u32]) -> Result {
        let result = numbers
            .iter()
            .try_for_each(|&number| Self::attach_liodn(this, state, number));
        if result.is_err() {
            this.remove_unused(state, numbers);
        }
        result
    }

    /// Removes the LIODNs of `numbers` that no group of this container has any more. Those that
    /// other containers have are left alone.
    fn remove_unused(&self, state: &mut Guard<'_>, numbers: &[u32]) {
        for &number in numbers {
            if !is_member(state, number) {
                clear_container(number, self);
                state.devices.remove(number);
            }
        }
    }

    /// Adds and enables a LIODN, unless the container has it already.
    fn attach_liodn(this: ArcBorrow<'_, Self>, state: &mut Guard<'_>, number: u32) -> Result {
        if state.devices.get(number).is_some() {
            return Ok(());
        }
        let attributes = state.attributes();
        let ContainerState {
            space,
            devices,
            event,
            ..
        } = &mut **state;
        devices.add(number, space, attributes, event.clone())?;
        set_container(number, this.into())
    }

    /// Detaches a group. Detaching the last group removes all mappings.
    pub(crate) fn detach(&self, group: &Group) {
        let mut state = self.lock();
        let same = |present: &AttachedGroup| *present.group == *group;
        let Some(place) = state.groups.iter().position(same) else {
            return;
        };
        let Ok(attached) = state.groups.remove(place) else {
            return;
        };
        self.remove_unused(&mut state, &attached.liodns);
        if state.groups.is_empty() {
            let ContainerState { space, devices, .. } = &mut *state;
            space.unmap_all(devices);
            let count = space.window_count();
            drop(state);
            self.free_unmapped(0..=count - 1);
        }
    }
}

#[kunit_tests(vfio_pamu_attach)]
mod tests {
    use kernel::sync::Arc;

    use super::*;

    use crate::{
        container::container_of,
        platform_driver::testing::register_for_container, //
    };

    #[test]
    fn failed_attach_leaves_other_containers_alone() -> Result {
        let Some(_registration) = register_for_container()? else {
            return Ok(());
        };
        let [first, second] = [Container::new()?, Container::new()?];
        Container::attach_liodns(first.as_arc_borrow(), &mut first.lock(), &[3])?;
        let refused =
            Container::attach_liodns(second.as_arc_borrow(), &mut second.lock(), &[2, 3, 4]);
        assert_eq!(refused, Err(EBUSY));
        let found = container_of(3).is_some_and(|found| Arc::ptr_eq(&found, &first));
        let added = second.lock().devices.iter().count();
        // The table holds a reference to the container until here.
        first.remove_unused(&mut first.lock(), &[3]);
        assert!(found);
        assert_eq!(added, 0);
        assert!([2, 3, 4].iter().all(|liodn| container_of(*liodn).is_none()));
        Ok(())
    }
}
