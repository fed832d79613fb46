// SPDX-License-Identifier: GPL-2.0

//! Moving devices between software groups. Drivers decide which devices share such a group.
//!
//! The thread that moves a device becomes the user of both groups, so a group cannot be in use
//! while it changes. The thread also holds the registry's lock throughout, so no device is
//! registered or unregistered meanwhile.

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
    abi::GROUPS,
    registry::{
        software_group,
        Ended,
        Registry, //
    },
    user::User,
    Group, //
};

/// Moves devices for the drivers that created them.
pub(crate) struct Mover;

impl Regroup for Mover {
    fn regroup(
        &self,
        dev: &Parent,
        companions: &[ARef<Parent>],
        commit: &mut dyn FnMut(),
    ) -> Result {
        let mut emptied = None;
        let result = GROUPS.lock().regroup(dev, companions, commit, &mut emptied);
        drop(emptied);
        result
    }
}

/// A group that was removed from the registry while the mover is its user.
///
/// The fields are dropped in this order: the group ends while it has no other user, so its end does
/// not wait for a process.
struct Emptied {
    _ended: Ended,
    _user: User,
}

/// Becomes the user of `group`, so that userspace cannot open the group.
///
/// # Errors
///
/// Returns `EBUSY` if the group already has a user.
fn claim(group: &Arc<Group>) -> Result<User> {
    User::claim(group).map_err(|_| EBUSY)
}

impl Registry {
    /// Returns the group of `dev` if it is a software group of devices that do no DMA of their own.
    fn software_group_of(&self, dev: &Parent) -> Option<Arc<Group>> {
        let group = self.group(IommuGroup::of(dev)?.id())?;
        (group.kind() == GroupKind::Emulated).then_some(group)
    }

    /// Implements [`Regroup::regroup`]. If a group becomes empty, it is returned in `emptied`.
    fn regroup(
        &mut self,
        dev: &Parent,
        companions: &[ARef<Parent>],
        commit: &mut dyn FnMut(),
        emptied: &mut Option<Emptied>,
    ) -> Result {
        let from = self.software_group_of(dev).ok_or(ENODEV)?;
        let to = companions
            .iter()
            .find_map(|companion| self.software_group_of(companion));
        let user = claim(&from)?;
        let ended = match to {
            Some(to) if Arc::ptr_eq(&to, &from) => {
                commit();
                None
            }
            Some(to) => {
                let _user = claim(&to)?;
                self.shift(dev, &from, &to, commit)?
            }
            None if self.devices(&from) == 1 => {
                commit();
                None
            }
            None => {
                let iommu_group = software_group()?;
                let to = Group::new(iommu_group.clone(), GroupKind::Emulated)?;
                // The group has no node yet, so no process can be its user.
                let user = claim(&to)?;
                self.add(to.clone(), iommu_group)?;
                match self.shift(dev, &from, &to, commit) {
                    Ok(ended) => ended,
                    Err(e) => {
                        *emptied = self.remove_if_empty(&to).map(|ended| Emptied {
                            _ended: ended,
                            _user: user,
                        });
                        return Err(e);
                    }
                }
            }
        };
        *emptied = ended.map(|ended| Emptied {
            _ended: ended,
            _user: user,
        });
        Ok(())
    }

    /// Moves `dev` between two groups, both of which the caller has claimed. Returns the former
    /// group if it is empty now.
    ///
    /// # Errors
    ///
    /// Returns `ENODEV` if the device is being removed; `ENOMEM`; or an error from sysfs.
    fn shift(
        &mut self,
        dev: &Parent,
        from: &Arc<Group>,
        to: &Arc<Group>,
        commit: &mut dyn FnMut(),
    ) -> Result<Option<Ended>> {
        let device = from.device_of(dev).ok_or(ENODEV)?;
        let (old, new) = (self.iommu_group(from)?, self.iommu_group(to)?);
        // Both groups list the device until it is removed from the old one. It cannot be opened
        // meanwhile because both groups are claimed.
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
