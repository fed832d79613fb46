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
    file::OpenGroup,
    registry::{
        software_group,
        Registry, //
    },
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
        let mut groups = GROUPS.lock();
        let from = groups.software_group_of(dev).ok_or(ENODEV)?;
        let to = companions
            .iter()
            .find_map(|companion| groups.software_group_of(companion));
        let _no_user = OpenGroup::claim(&from)?;
        match to {
            Some(to) if Arc::ptr_eq(&to, &from) => commit(),
            Some(to) => {
                let _no_user = OpenGroup::claim(&to)?;
                groups.shift(dev, &from, &to, commit)?;
            }
            None if groups.devices(&from) == 1 => commit(),
            None => {
                let to = groups.add(software_group()?, GroupKind::Emulated)?;
                let _no_user = OpenGroup::claim(&to)?;
                let shifted = groups.shift(dev, &from, &to, commit);
                shifted.inspect_err(|_| groups.remove_if_empty(&to))?;
            }
        }
        Ok(())
    }
}

impl Registry {
    /// The group of `dev`, if it is a software group with devices that do no DMA of their own.
    fn software_group_of(&self, dev: &Parent) -> Option<Arc<Group>> {
        let group = self.group(IommuGroup::of(dev)?.id())?;
        (group.kind() == GroupKind::Emulated).then_some(group)
    }

    /// Moves `dev` between two groups that are both claimed.
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
    ) -> Result {
        let device = from.device_of(dev).ok_or(ENODEV)?;
        to.devices.lock().reserve(1, GFP_KERNEL)?;
        let (old, new) = (self.iommu_group(from)?, self.iommu_group(to)?);
        old.move_device(dev, &new)?;
        from.remove_device(&device);
        // Room was made above, and nobody else adds a device while the table's lock is held.
        let _ = to.devices.lock().push_within_capacity(device.clone());
        drop(device.replace_group(to.clone(), self));
        commit();
        self.count(to);
        self.leave(from);
        Ok(())
    }
}
