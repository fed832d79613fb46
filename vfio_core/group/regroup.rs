// SPDX-License-Identifier: GPL-2.0

//! Devices that change groups: software groups are what drivers make of them.
//!
//! Whoever moves a device takes both groups as their user would, so a group is being used or being
//! changed, and never both. The table's lock is held all the while: no device comes or goes meanwhile.

use iommu_group::software::Regroup;
use kernel::{
    device::Device as Parent,
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    }, //
};
use kernel_ext::{
    iommu::Group as IommuGroup,
    iommu_driver::GroupKind, //
};

use super::{
    registry::{
        software_group,
        Ended,
        Registry, //
    },
    user::User,
    Group, //
};
use crate::abi::globals::GROUPS;

/// Moves devices on behalf of the drivers that made them.
pub(crate) struct Mover;

impl Regroup for Mover {
    fn regroup(
        &self,
        dev: &Parent,
        companions: &[ARef<Parent>],
        commit: &mut dyn FnMut(),
    ) -> Result {
        let mut ended = None;
        let result = GROUPS.lock().regroup(dev, companions, commit, &mut ended);
        drop(ended);
        result
    }
}

/// Becomes the user of `group`, so that no program is.
///
/// # Errors
///
/// `EBUSY` if it has a user.
fn claim(group: &Arc<Group>) -> Result<User> {
    User::claim(group).map_err(|_| EBUSY)
}

impl Registry {
    /// The group of `dev`, if it is a software group with devices that do no DMA of their own.
    fn software_group_of(&self, dev: &Parent) -> Option<Arc<Group>> {
        let group = self.group(IommuGroup::of(dev)?.id())?;
        (group.kind() == GroupKind::Emulated).then_some(group)
    }

    /// [`Regroup::regroup`]. A group that has no device any more is left in `ended`.
    fn regroup(
        &mut self,
        dev: &Parent,
        companions: &[ARef<Parent>],
        commit: &mut dyn FnMut(),
        ended: &mut Option<Ended>,
    ) -> Result {
        let from = self.software_group_of(dev).ok_or(ENODEV)?;
        let to = companions
            .iter()
            .find_map(|companion| self.software_group_of(companion));
        let _user = claim(&from)?;
        match to {
            Some(to) if Arc::ptr_eq(&to, &from) => commit(),
            Some(to) => {
                let _user = claim(&to)?;
                *ended = self.shift(dev, &from, &to, commit)?;
            }
            None if self.devices(&from) == 1 => commit(),
            None => {
                let to = self.add(software_group()?, GroupKind::Emulated)?;
                // The new group has a node already, so a program may have been quicker.
                let shifted = claim(&to).and_then(|_user| self.shift(dev, &from, &to, commit));
                *ended = shifted.inspect_err(|_| *ended = self.remove_if_empty(&to))?;
            }
        }
        Ok(())
    }

    /// Moves `dev` between two groups that are both claimed. Returns the former group if it is empty now.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is being removed, `ENOMEM`, or what sysfs says.
    fn shift(
        &mut self,
        dev: &Parent,
        from: &Arc<Group>,
        to: &Arc<Group>,
        commit: &mut dyn FnMut(),
    ) -> Result<Option<Ended>> {
        let device = from.device_of(dev).ok_or(ENODEV)?;
        let (old, new) = (self.iommu_group(from)?, self.iommu_group(to)?);
        // For a moment both groups list the device. Nobody can open it, as both are claimed.
        to.add_device(&device)?;
        old.move_device(dev, &new)
            .inspect_err(|_| to.remove_device(&device))?;
        from.remove_device(&device);
        drop(device.replace_group(to.clone(), self));
        commit();
        self.count(to);
        Ok(self.leave(from))
    }
}
