// SPDX-License-Identifier: GPL-2.0

//! Moving devices between software groups. Drivers decide which devices share such a group.

use kernel::{
    prelude::*,
    sync::Arc, //
};
use kernel_ext::{
    iommu::Group as IommuGroup,
    iommu_driver::GroupKind, //
};

use super::{
    abi::GROUPS,
    holder::User,
    registry::software_group,
    Group, //
};
use crate::device::Device;

/// Moves `device` to the software group `group`, or to a group of its own if `group` is `None` or
/// has no registered device. Calls `commit` as soon as the move cannot fail any more.
///
/// The calling thread becomes the user of both groups, so no process can open them or their devices
/// meanwhile. `device` is registered, and the caller does not unregister it during the call. The
/// registry is locked throughout, so no other device joins or leaves a group.
///
/// # Errors
///
/// Nothing changes on error. `EBUSY` if one of the groups has a user; `ENODEV` if `device` is in no
/// software group; `ENOMEM`; or an error from sysfs.
pub(crate) fn move_device(
    device: &Device,
    group: Option<&IommuGroup>,
    commit: impl FnOnce(),
) -> Result {
    let mut groups = GROUPS.lock();
    let is_software = |group: &Arc<Group>| group.kind() == GroupKind::Emulated;
    let claim = |group: &Arc<Group>| User::claim(group).map_err(|_| EBUSY);
    let from = device.group(&groups).filter(is_software).ok_or(ENODEV)?;
    let _from_user = claim(&from)?;
    let to = group.and_then(|iommu_group| {
        let group = groups.group(iommu_group.id()).filter(is_software)?;
        Some((group, iommu_group))
    });
    let stays = match &to {
        Some((to, _)) => Arc::ptr_eq(to, &from),
        None => groups.devices(&from) == 1,
    };
    if stays {
        commit();
        return Ok(());
    }
    let own_group;
    let (to, iommu_group, _to_user) = match to {
        Some((to, iommu_group)) => {
            let user = claim(&to)?;
            (to, iommu_group, user)
        }
        None => {
            own_group = software_group()?;
            let to = Group::new(own_group.clone(), GroupKind::Emulated)?;
            // Before the group has a node, so no process can be its user.
            let user = claim(&to)?;
            groups.add(to.clone())?;
            (to, &*own_group, user)
        }
    };
    groups.count(&to);
    // Both groups count and list the device until it is removed from one of them. It cannot be
    // opened meanwhile because both groups have a user.
    let moved = to.add_device(device).and_then(|()| {
        IommuGroup::move_device(device.parent(), iommu_group)
            .inspect_err(|_| to.remove_device(device))
    });
    if moved.is_ok() {
        from.remove_device(device);
        drop(device.exchange_group(Some(to.clone()), &mut groups));
        commit();
    }
    let emptied = groups.leave(if moved.is_ok() { &from } else { &to });
    drop(groups);
    // Dropping the group does not wait for a user: this thread still is its user.
    drop(emptied);
    moved
}
