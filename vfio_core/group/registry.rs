// SPDX-License-Identifier: GPL-2.0

//! The registry of all groups that have a registered device. Devices join, change and leave groups
//! here.

use kernel::{
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    }, //
};
use kernel_ext::{
    chardev::{
        ClassRegistration,
        NodeNumbers,
        NodeRegistration, //
    },
    debugfs::Dir,
    iommu::{
        Group as IommuGroup,
        Member,
        SoftwareGroup, //
    },
    iommu_driver::GroupType,
    tree::{
        Slot,
        Tree, //
    }, //
};

use super::{
    abi::{
        GroupsGuard,
        GROUPS, //
    },
    debugfs,
    file::FILES,
    holder::{
        DeviceUser,
        IdleGroup, //
    },
    Group,
    CLASS, //
};
use crate::device::{
    registration::{
        Joined,
        Registered,
        Unregistered, //
    },
    Device, //
};

/// The groups, and the class and the device numbers of their nodes.
pub(crate) struct Registry {
    class: Option<Arc<ClassRegistration>>,
    numbers: Option<Arc<NodeNumbers>>,
    /// Indexed by group id.
    entries: Tree<i32, Entry>,
    /// The parents of devices in software groups, indexed by the number in the device's name.
    members: Tree<u32, Member>,
}

/// A group and its device node.
struct Entry {
    /// `None` on a kernel without `/dev/vfio/N`.
    _node: Option<NodeRegistration<Arc<Group>>>,
    group: Arc<Group>,
    /// `None` if the IOMMU core has created the group.
    software: Option<SoftwareGroup>,
    /// The number of registered devices.
    devices: usize,
}

impl Registry {
    pub(super) const fn new() -> Self {
        Self {
            class: None,
            numbers: None,
            entries: Tree::new(),
            members: Tree::new(),
        }
    }

    /// Counts `device` in its group, which this returns and the IOMMU core has created. Creates the
    /// entry of the group if this is its first device.
    fn enter(&mut self, iommu_group: ARef<IommuGroup>, device: &Device) -> Result<Arc<Group>> {
        match self.entries.get_mut(&iommu_group.id()) {
            Some(entry) => {
                if entry.group.device_of(device.parent()).is_some() {
                    dev_warn!(device.parent(), "vfio: the device is already registered\n");
                    return Err(EINVAL);
                }
                entry.devices += 1;
                Ok(entry.group.clone())
            }
            None => {
                let group = Group::new(iommu_group, GroupType::Iommu)?;
                self.add(group.clone(), None)?;
                Ok(group)
            }
        }
    }

    /// Returns the group with the given id.
    pub(super) fn group(&self, id: i32) -> Option<Arc<Group>> {
        Some(self.entries.get(&id)?.group.clone())
    }

    /// Adds a group for its first device, and creates its node.
    pub(super) fn add(&mut self, group: Arc<Group>, software: Option<SoftwareGroup>) -> Result {
        let slot = Slot::new()?;
        let node = if cfg!(CONFIG_VFIO_GROUP) {
            Some(self.new_node(&group)?)
        } else {
            None
        };
        let entry = Entry {
            _node: node,
            group,
            software,
            devices: 1,
        };
        self.entries.insert(slot.fill(entry.group.id, entry));
        Ok(())
    }

    fn new_node(&self, group: &Arc<Group>) -> Result<NodeRegistration<Arc<Group>>> {
        let class = self.class.clone().ok_or(ENODEV)?;
        let number = NodeNumbers::alloc(self.numbers.as_ref().ok_or(ENODEV)?)?;
        NodeRegistration::new(class, &FILES, number, &group.name()?, group.clone())
    }

    /// Decrements the device count. Removes the group and its node when the count becomes zero.
    pub(super) fn leave(&mut self, group: &Group) -> Option<RemovedGroup> {
        let entry = self.entries.get_mut(&group.id)?;
        entry.devices -= 1;
        if entry.devices > 0 {
            return None;
        }
        let entry = self.entries.remove(&group.id)?;
        Some(RemovedGroup(entry.group))
    }
}

/// A group that was removed from the registry. Dropping this ends all use of the group.
///
/// The drop waits for requests of the group's user and for readers of its file in debugfs, which
/// userspace can prolong at will. The caller therefore releases the registry's lock first.
#[must_use]
pub(super) struct RemovedGroup(Arc<Group>);

impl Drop for RemovedGroup {
    fn drop(&mut self) {
        debugfs::update(self.0.id);
        // The last device is already unregistered, so no device is open.
        let mut state = self.0.state.lock();
        state.leave_container(|_| true);
        state.iommu_group = None;
    }
}

/// Adds `device` to the IOMMU group of its parent.
///
/// # Errors
///
/// Returns `EINVAL` if the device has no IOMMU group and no-IOMMU mode is off: nothing would
/// confine its DMA.
pub(crate) fn join_physical(device: Unregistered<'_>) -> Result<(Joined<'_>, Arc<Group>)> {
    let Some(iommu_group) = IommuGroup::of(device.parent()) else {
        #[cfg(CONFIG_VFIO_NOIOMMU)]
        if crate::noiommu::enabled() {
            return crate::noiommu::join(device);
        }
        dev_warn!(
            device.parent(),
            "vfio: the device is in no IOMMU group; enable the IOMMU in the firmware, and on Intel with intel_iommu=on\n"
        );
        return Err(EINVAL);
    };
    let mut groups = GROUPS.lock();
    let group = groups.enter(iommu_group, &device)?;
    Ok(join(groups, device, group))
}

/// The name that sysfs shows for software groups.
pub(super) const SOFTWARE_GROUP: &CStr = c"vfio-noiommu";

/// Adds `device` and its parent to a new software group.
pub(crate) fn join_software(
    device: Unregistered<'_>,
    kind: GroupType,
) -> Result<(Joined<'_>, Arc<Group>)> {
    let software = SoftwareGroup::new(SOFTWARE_GROUP)?;
    let slot = Slot::new()?;
    let member = software.add(device.parent())?;
    let group = Group::new((&*software).into(), kind)?;
    let mut groups = GROUPS.lock();
    groups.add(group.clone(), Some(software))?;
    groups.members.insert(slot.fill(device.index(), member));
    Ok(join(groups, device, group))
}

/// Sets the group of `device`, which is counted in it.
fn join(
    mut groups: GroupsGuard,
    device: Unregistered<'_>,
    group: Arc<Group>,
) -> (Joined<'_>, Arc<Group>) {
    let device = device.join(group.clone(), &mut groups);
    drop(groups);
    debugfs::update(group.id);
    (device, group)
}

/// Moves `device` to the software group `group`, or to a group of its own if `group` is `None` or
/// has no registered device. Calls `commit` as soon as the move cannot fail any more. Drivers
/// decide which devices share a software group.
///
/// The calling thread becomes the user of both groups, so no process can open them or their devices
/// meanwhile. The registry is locked throughout, so no other device joins or leaves a group.
///
/// # Errors
///
/// Nothing changes on error. `EBUSY` if one of the groups has a user; `ENODEV` if `device` is in no
/// software group; `ENOMEM`; or an error from sysfs.
pub(crate) fn move_device(
    device: &Registered<'_>,
    group: Option<&IommuGroup>,
    commit: impl FnOnce(),
) -> Result {
    let mut groups = GROUPS.lock();
    let is_software = |group: &Arc<Group>| group.kind == GroupType::Emulated;
    let from = device.group().filter(is_software).ok_or(ENODEV)?;
    // A device that is being unregistered is no longer listed. It must not be listed again.
    let listed = from.device_of(device.parent()).ok_or(ENODEV)?;
    if !core::ptr::eq(&*listed, &**device) {
        return Err(ENODEV);
    }
    let idle_from = IdleGroup::claim(&from)?;
    let found = group.and_then(|iommu_group| {
        let entry = groups.entries.get_mut(&iommu_group.id())?;
        is_software(&entry.group).then_some(entry)
    });
    let (idle_to, software) = match found {
        Some(entry) => {
            if Arc::ptr_eq(&entry.group, &from) {
                commit();
                return Ok(());
            }
            let software = entry.software.clone().ok_or(ENODEV)?;
            let idle = IdleGroup::claim(&entry.group)?;
            entry.devices += 1;
            (idle, software)
        }
        None => {
            let alone = |entry: &Entry| entry.devices == 1;
            if groups.entries.get(&from.id).is_some_and(alone) {
                commit();
                return Ok(());
            }
            let software = SoftwareGroup::new(SOFTWARE_GROUP)?;
            let to = Group::new((&*software).into(), GroupType::Emulated)?;
            // Before the group has a node, so no process can be its user.
            let idle = IdleGroup::claim(&to)?;
            groups.add(to, Some(software.clone()))?;
            (idle, software)
        }
    };
    let to = idle_to.group();
    // Both groups count and list the device until it is removed from one of them. It cannot be
    // opened meanwhile because both groups have a user.
    let moved = Slot::new().and_then(|slot| {
        let member = groups.members.get_mut(&device.index()).ok_or(ENODEV)?;
        to.add_device(device, slot);
        member
            .move_to(&software)
            .inspect_err(|_| to.remove_device(device))
    });
    if moved.is_ok() {
        from.remove_device(device);
        device.change_group(&idle_from, &idle_to, &mut groups);
        commit();
    }
    let emptied = groups.leave(if moved.is_ok() { &from } else { to });
    drop(groups);
    debugfs::update(to.id);
    // Dropping the group does not wait for a user: this thread still is its user.
    drop(emptied);
    moved
}

/// Prevents `device` from being opened or moved to another group. Returns its group.
pub(crate) fn unlist_device(device: &Device) -> Option<Arc<Group>> {
    // The device does not change its group meanwhile.
    let _groups = GROUPS.lock();
    let group = device.group()?;
    group.remove_device(device);
    Some(group)
}

/// Makes the caller a user of `device` through a file of its own. The device does not change its
/// group until the result is dropped.
///
/// # Errors
///
/// Those of [`DeviceUser::claim`]; `ENODEV` if the device is not registered any more.
pub(crate) fn use_device(device: &Device) -> Result<DeviceUser> {
    loop {
        let group = device.group().ok_or(ENODEV)?;
        let user = DeviceUser::claim(&group, device)?;
        // A device does not leave a group that has a user, but may have left before.
        if device.is_in(&group) {
            return Ok(user);
        }
    }
}

/// Removes `device` from its group.
pub(crate) fn leave(device: &mut Unregistered<'_>) {
    let mut groups = GROUPS.lock();
    let Some(group) = device.leave(&mut groups) else {
        return;
    };
    drop(groups.members.remove(&device.index()));
    let ended = groups.leave(&group);
    drop(groups);
    drop(ended);
}

/// Owns the class, the device numbers and the debugfs directory of groups while the module is
/// loaded.
pub(crate) struct GroupClass(());

impl GroupClass {
    /// Registers the class, allocates the device numbers, and creates the directory in `debug`.
    pub(crate) fn new(debug: &Dir) -> Result<Self> {
        debugfs::create_folder(debug)?;
        let this = Self(());
        if cfg!(CONFIG_VFIO_GROUP) {
            let class = Arc::new(CLASS.register()?, GFP_KERNEL)?;
            let numbers = NodeNumbers::new(c"vfio")?;
            let mut groups = GROUPS.lock();
            groups.class = Some(class);
            groups.numbers = Some(numbers);
        }
        Ok(this)
    }
}

impl Drop for GroupClass {
    fn drop(&mut self) {
        let former = core::mem::replace(&mut *GROUPS.lock(), Registry::new());
        drop(former);
        debugfs::remove_folder();
    }
}
