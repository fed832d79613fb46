// SPDX-License-Identifier: GPL-2.0

//! The registry of all groups that have a registered device.

use kernel::{
    debugfs::{
        Dir,
        File, //
    },
    prelude::*,
    str::CString,
    sync::{
        aref::ARef,
        Arc, //
    }, //
};
use kernel_ext::{
    chardev::{
        ClassRegistration,
        NodeRegistration,
        Region, //
    },
    iommu::Group as IommuGroup,
    iommu_driver::GroupKind,
    tree::{
        Node,
        Slot,
        Tree, //
    }, //
};

use super::{
    abi::GROUPS,
    file::FILES,
    snapshot::{
        create_debugfs_file,
        DebugfsContents, //
    },
    Group,
    CLASS, //
};
use crate::{
    device::Device,
    ida::Ida, //
};

/// The groups, and the class and the device numbers of their nodes.
pub(crate) struct Registry {
    class: Option<Arc<ClassRegistration>>,
    region: Option<Arc<Region>>,
    debug: Option<Dir>,
    minors: Ida,
    /// Indexed by group id.
    entries: Tree<i32, Entry>,
}

/// A group and its device node.
struct Entry {
    debug: Pin<KBox<File<DebugfsContents>>>,
    node: NodeRegistration<Arc<Group>>,
    minor: u32,
    group: Arc<Group>,
    /// The number of registered devices.
    devices: usize,
}

impl Registry {
    pub(crate) const fn new() -> Self {
        Self {
            class: None,
            region: None,
            debug: None,
            minors: Ida::new(),
            entries: Tree::new(),
        }
    }

    /// Sets the group of `device`, and counts the device there. Creates the group if this is its
    /// first device.
    fn join(
        &mut self,
        iommu_group: ARef<IommuGroup>,
        kind: GroupKind,
        device: &Device,
    ) -> Result<Arc<Group>> {
        let group = match self.group(iommu_group.id()) {
            Some(group) => group,
            None => {
                let group = Group::new(iommu_group, kind)?;
                self.add(group.clone())?;
                group
            }
        };
        if group.device_of(device.parent()).is_some() {
            dev_warn!(device.parent(), "vfio: the device is already registered\n");
            return Err(EINVAL);
        }
        self.count(&group);
        drop(device.exchange_group(Some(group.clone()), self));
        Ok(group)
    }

    /// Returns the group with the given id.
    pub(super) fn group(&self, id: i32) -> Option<Arc<Group>> {
        Some(self.entries.get(&id)?.group.clone())
    }

    /// Returns the number of registered devices of `group`.
    pub(super) fn devices(&self, group: &Group) -> usize {
        self.entries.get(&group.id).map_or(0, |entry| entry.devices)
    }

    /// Adds a group that has no device yet, and creates its node.
    pub(super) fn add(&mut self, group: Arc<Group>) -> Result {
        let minor = self.minors.alloc()?;
        let node = self.make(minor, group);
        self.entries
            .insert(node.inspect_err(|_| self.minors.free(minor))?);
        Ok(())
    }

    fn make(&self, minor: u32, group: Arc<Group>) -> Result<Node<i32, Entry>> {
        let class = self.class.clone().ok_or(ENODEV)?;
        let number = Region::number(self.region.as_ref().ok_or(ENODEV)?, minor)?;
        let folder = self.debug.as_ref().ok_or(ENODEV)?;
        let prefix = match group.kind {
            GroupKind::NoIommu => "noiommu-",
            _ => "",
        };
        let name = CString::try_from_fmt(fmt!("{}{}", prefix, group.id))?;
        let slot = Slot::new()?;
        let debug = KBox::new_uninit(GFP_KERNEL)?;
        let node = NodeRegistration::new(class, &FILES, number, &name, group.clone())?;
        let entry = Entry {
            // Nothing can fail from here on: removing this file would wait for its readers, with
            // the registry locked.
            debug: create_debugfs_file(debug, folder, &name, group.clone()),
            node,
            minor,
            group,
            devices: 0,
        };
        Ok(slot.fill(entry.group.id, entry))
    }

    /// Increments the device count of a registered group.
    pub(super) fn count(&mut self, group: &Group) {
        if let Some(entry) = self.entries.get_mut(&group.id) {
            entry.devices += 1;
        }
    }

    /// Decrements the device count. Removes the group and its node when the count becomes zero.
    pub(super) fn leave(&mut self, group: &Group) -> Option<Ended> {
        if let Some(entry) = self.entries.get_mut(&group.id) {
            entry.devices -= 1;
        }
        self.remove_if_empty(group)
    }

    /// Removes the group and its node if the group has no device.
    pub(super) fn remove_if_empty(&mut self, group: &Group) -> Option<Ended> {
        if self.devices(group) > 0 {
            return None;
        }
        let entry = self.entries.remove(&group.id)?;
        drop(entry.node);
        self.minors.free(entry.minor);
        Some(Ended {
            group: entry.group,
            debug: Some(entry.debug),
        })
    }
}

/// A group that was removed from the registry. Dropping this ends all use of the group.
///
/// The drop waits for requests of the group's user, which userspace can prolong at will. The caller
/// therefore releases the registry's lock first, so that other devices do not have to wait.
#[must_use]
pub(super) struct Ended {
    group: Arc<Group>,
    debug: Option<Pin<KBox<File<DebugfsContents>>>>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        // Remove this first: a new group with this id needs the name, and `revoke` may take long.
        drop(self.debug.take());
        self.group.revoke();
    }
}

/// Adds `device` to the IOMMU group of its parent.
///
/// # Errors
///
/// Returns `EINVAL` if the device has no IOMMU group and no-IOMMU mode is off: nothing would
/// confine its DMA.
pub(crate) fn join_physical(device: &Device) -> Result<Arc<Group>> {
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
    GROUPS.lock().join(iommu_group, GroupKind::Iommu, device)
}

/// Adds `device` and its parent to a new software group.
pub(crate) fn join_software(device: &Device, kind: GroupKind) -> Result<Arc<Group>> {
    let iommu_group = software_group()?;
    iommu_group.add_device(device.parent())?;
    GROUPS
        .lock()
        .join(iommu_group, kind, device)
        .inspect_err(|_| IommuGroup::remove_device(device.parent()))
}

/// Allocates a software group without devices.
pub(super) fn software_group() -> Result<ARef<IommuGroup>> {
    IommuGroup::alloc(c"vfio-noiommu")
}

/// Prevents `device` from being opened or moved to another group. Returns its group.
pub(crate) fn withdraw(device: &Device) -> Option<Arc<Group>> {
    let groups = GROUPS.lock();
    let group = device.group(&groups)?;
    group.remove_device(device);
    Some(group)
}

/// Removes `device` from its group. The device is not registered any more.
pub(crate) fn leave(device: &Device) {
    let mut groups = GROUPS.lock();
    let Some(group) = device.exchange_group(None, &mut groups) else {
        return;
    };
    if group.kind() != GroupKind::Iommu {
        IommuGroup::remove_device(device.parent());
    }
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
        let class = Arc::new(CLASS.register()?, GFP_KERNEL)?;
        let region = Region::new(c"vfio", Region::ALL_MINORS)?;
        let mut groups = GROUPS.lock();
        groups.class = Some(class);
        groups.region = Some(region);
        groups.debug = Some(debug.subdir(c"groups"));
        Ok(Self(()))
    }
}

impl Drop for GroupClass {
    fn drop(&mut self) {
        let former = core::mem::replace(&mut *GROUPS.lock(), Registry::new());
        drop(former);
    }
}
