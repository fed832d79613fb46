// SPDX-License-Identifier: GPL-2.0

//! All groups that have a registered device.

use kernel::{
    debugfs::{
        Dir,
        File, //
    },
    device::Device as Parent,
    prelude::*,
    str::CString,
    sync::{
        aref::ARef,
        Arc, //
    }, //
};
use kernel_ext::{
    chardev::{
        NodeRegistration,
        Region, //
    },
    iommu::Group as IommuGroup,
    iommu_driver::GroupKind, //
};

use super::{
    debugfs::{
        self,
        Contents, //
    },
    file::FILES,
    Group,
    CLASS, //
};
use crate::{
    abi::globals::GROUPS,
    numbers::Numbers, //
};

/// The groups, and what their nodes are numbered from.
pub(crate) struct Registry {
    region: Option<Region>,
    debug: Option<Dir>,
    minors: Numbers,
    entries: KVec<Entry>,
}

/// A group with its node.
struct Entry {
    _debug: Pin<KBox<File<Contents>>>,
    node: NodeRegistration<Arc<Group>>,
    minor: u32,
    group: Arc<Group>,
    iommu_group: ARef<IommuGroup>,
    /// How many registered devices it has.
    devices: usize,
}

impl Registry {
    pub(crate) const fn new() -> Self {
        Self {
            region: None,
            debug: None,
            minors: Numbers::new(),
            entries: KVec::new(),
        }
    }

    /// Counts a device of `parent` into its group, which is made if this is the first one.
    fn join(
        &mut self,
        iommu_group: ARef<IommuGroup>,
        kind: GroupKind,
        parent: &Parent,
    ) -> Result<Arc<Group>> {
        let same = |entry: &&mut Entry| core::ptr::eq(&*entry.iommu_group, &*iommu_group);
        if let Some(entry) = self.entries.iter_mut().find(same) {
            if entry.group.has_device_of(parent) {
                dev_warn!(parent, "vfio: this device is registered already\n");
                return Err(EINVAL);
            }
            entry.devices += 1;
            return Ok(entry.group.clone());
        }
        self.add(iommu_group, kind)
    }

    fn add(&mut self, iommu_group: ARef<IommuGroup>, kind: GroupKind) -> Result<Arc<Group>> {
        self.entries.reserve(1, GFP_KERNEL)?;
        let minor = self.minors.take()?;
        let entry = self.make(minor, iommu_group, kind);
        let entry = entry.inspect_err(|_| self.minors.give_back(minor))?;
        let group = entry.group.clone();
        self.entries.push(entry, GFP_KERNEL)?;
        Ok(group)
    }

    fn make(&self, minor: u32, iommu_group: ARef<IommuGroup>, kind: GroupKind) -> Result<Entry> {
        let number = self.region.as_ref().ok_or(ENODEV)?.number(minor)?;
        let prefix = match kind {
            GroupKind::NoIommu => "noiommu-",
            _ => "",
        };
        let name = CString::try_from_fmt(fmt!("{}{}", prefix, iommu_group.id()))?;
        let group = Group::new(iommu_group.clone(), kind)?;
        let folder = self.debug.as_ref().ok_or(ENODEV)?;
        Ok(Entry {
            _debug: debugfs::show(folder, &name, group.clone())?,
            node: NodeRegistration::new(&CLASS, &FILES, number, &name, group.clone())?,
            minor,
            group,
            iommu_group,
            devices: 1,
        })
    }

    /// Counts a device out; the last one takes the group's node with it.
    fn leave(&mut self, group: &Arc<Group>) {
        let same = |entry: &Entry| Arc::ptr_eq(&entry.group, group);
        let Some(index) = self.entries.iter().position(same) else {
            return;
        };
        self.entries[index].devices -= 1;
        if self.entries[index].devices > 0 {
            return;
        }
        if let Ok(entry) = self.entries.remove(index) {
            drop(entry.node);
            entry.group.revoke();
            self.minors.give_back(entry.minor);
        }
    }
}

/// Puts a device of `parent` into the group that the IOMMU made for it.
///
/// # Errors
///
/// `EINVAL` if it has none: nothing confines its DMA.
pub(crate) fn join_physical(parent: &Parent) -> Result<Arc<Group>> {
    let Some(iommu_group) = IommuGroup::of(parent) else {
        #[cfg(CONFIG_VFIO_NOIOMMU)]
        if crate::noiommu::enabled() {
            return crate::noiommu::join(parent);
        }
        dev_warn!(
            parent,
            "vfio: no IOMMU confines this device; enable it (intel_iommu=on, amd_iommu=on)\n"
        );
        return Err(EINVAL);
    };
    GROUPS.lock().join(iommu_group, GroupKind::Iommu, parent)
}

/// Puts a device of `parent` into a software group of its own.
pub(crate) fn join_software(parent: &Parent, kind: GroupKind) -> Result<Arc<Group>> {
    let iommu_group = IommuGroup::alloc()?;
    iommu_group.set_name(c"vfio-noiommu")?;
    iommu_group.add_device(parent)?;
    GROUPS
        .lock()
        .join(iommu_group, kind, parent)
        .inspect_err(|_| IommuGroup::remove_device(parent))
}

/// Takes a device of `parent`, which is open no more, out of `group`.
pub(crate) fn leave(group: &Arc<Group>, parent: &Parent) {
    if group.kind() != GroupKind::Iommu {
        IommuGroup::remove_device(parent);
    }
    GROUPS.lock().leave(group);
}

/// The device numbers of groups and their folder in debugfs, while the module is loaded.
pub(crate) struct Numbered(());

impl Numbered {
    /// Takes the numbers, and makes the folder in `debug`.
    pub(crate) fn new(debug: &Dir) -> Result<Self> {
        let region = Region::new(c"vfio", Region::ALL_MINORS)?;
        let mut groups = GROUPS.lock();
        groups.region = Some(region);
        groups.debug = Some(debug.subdir(c"groups"));
        Ok(Self(()))
    }
}

impl Drop for Numbered {
    fn drop(&mut self) {
        *GROUPS.lock() = Registry::new();
    }
}
