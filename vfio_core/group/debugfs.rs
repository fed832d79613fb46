// SPDX-License-Identifier: GPL-2.0

//! The files of groups in debugfs, `vfio/groups/N`, which show a group without opening it.

use kernel::{
    fmt,
    prelude::*,
    str::BStr,
    sync::{
        Arc,
        ArcBorrow, //
    }, //
};
use kernel_ext::{
    bindings::{
        self,
        vfio_group_device, //
    },
    debugfs::{
        Contents,
        Dir,
        File, //
    },
    tree::{
        Slot,
        Tree, //
    }, //
};

use super::{
    abi::{
        DEBUGFS_FILES,
        GROUPS, //
    },
    get_devices::Snapshot,
    holder::{
        Holder,
        SeenHolder, //
    },
    Group, //
};

/// The files of all groups.
pub(super) struct Files {
    folder: Option<Dir>,
    /// Indexed by group id.
    files: Tree<i32, File<GroupContents>>,
}

impl Files {
    pub(super) const fn new() -> Self {
        Self {
            folder: None,
            files: Tree::new(),
        }
    }

    /// Returns whether the file of `id` shows `group`, or is missing if that is `None`.
    fn shows(&self, id: i32, group: Option<&Group>) -> bool {
        match (self.files.get(&id), group) {
            (Some(file), Some(group)) => core::ptr::eq(&*file.data(), group),
            (file, group) => file.is_none() && group.is_none(),
        }
    }

    /// Creates the file of `group`. It is missing without memory or without the directory; no other
    /// code depends on it.
    fn create(&mut self, group: Arc<Group>) {
        let id = group.id;
        let (Some(folder), Ok(name), Ok(slot)) = (&self.folder, group.name(), Slot::new()) else {
            return;
        };
        let file = folder.file(&name, group);
        self.files.insert(slot.fill(id, file));
    }
}

/// Creates the directory of the files in `parent`.
pub(super) fn create_folder(parent: &Dir) -> Result {
    DEBUGFS_FILES.lock().folder = Some(parent.subdir(c"groups")?);
    Ok(())
}

/// Removes the directory.
pub(super) fn remove_folder() {
    *DEBUGFS_FILES.lock() = Files::new();
}

/// Creates, replaces or removes the file of `id`, so that it shows the group that has this id now.
/// Every thread that adds a group to the registry or removes one calls this afterwards, so the last
/// one finds the last group.
///
/// Waits for readers of a file that it removes. The caller therefore does not hold the lock of the
/// registry.
pub(super) fn update(id: i32) {
    let mut files = DEBUGFS_FILES.lock();
    let group = GROUPS.lock().group(id);
    if files.shows(id, group.as_deref()) {
        return;
    }
    drop(files.files.remove(&id));
    if let Some(group) = group {
        files.create(group);
    }
}

/// The contents of a file.
pub(super) struct GroupContents;

#[vtable]
impl Contents for GroupContents {
    type OwnerModule = crate::LocalModule;
    type Data = Arc<Group>;

    fn show(group: ArcBorrow<'_, Group>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        group.write_snapshot(f)
    }
}

impl Group {
    /// Writes the group's devices and users. Does not wait for requests of the group's user.
    fn write_snapshot(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.state.try_lock().map(|state| self.snapshot(state)) {
            Some(Ok(snapshot)) => fmt::Display::fmt(&snapshot, f),
            Some(Err(e)) if e == ENODEV => f.write_str("removed\n"),
            Some(Err(e)) => f.write_fmt(fmt!("error {}\n", e.to_errno())),
            None => {
                let holder = self.users.lock().of_group().map(Holder::seen);
                write_holder(f, holder)?;
                f.write_str("a request is in progress: read this file again\n")
            }
        }
    }
}

/// Returns the string in a field.
fn string(field: &[u8]) -> &BStr {
    let length = field.iter().position(|&c| c == 0).unwrap_or(field.len());
    BStr::from_bytes(&field[..length])
}

/// Describes how a device affects its group, and what the administrator can do.
fn meaning(member: &vfio_group_device) -> &'static str {
    match member.state {
        bindings::VFIO_GROUP_DEVICE_UNBOUND => "no driver, does not block the group",
        bindings::VFIO_GROUP_DEVICE_VFIO => "available to userspace",
        bindings::VFIO_GROUP_DEVICE_UNMANAGED => "does not block the group",
        bindings::VFIO_GROUP_DEVICE_KERNEL => "blocks the group: unbind it, or bind it to vfio-pci",
        _ => "being bound or unbound: read this file again",
    }
}

/// Writes the line that describes the group's user.
fn write_holder(f: &mut fmt::Formatter<'_>, holder: Option<SeenHolder>) -> fmt::Result {
    match holder {
        Some(holder) => f.write_fmt(fmt!("open: by {}\n", holder)),
        None => f.write_str("open: no\n"),
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_fmt(fmt!("viable: {}\n", if self.viable { "yes" } else { "no" }))?;
        let container = if self.in_container { "yes" } else { "no" };
        f.write_fmt(fmt!("in a container: {}\n", container))?;
        write_holder(f, self.holder)?;
        for member in &self.members {
            let (name, driver) = (string(&member.name), string(&member.driver));
            f.write_fmt(fmt!("{} [{}]: {}", name, driver, meaning(member)))?;
            if member.held_ms != 0 {
                f.write_fmt(fmt!(
                    ", open by {} ({}), for {} s",
                    string(&member.holder_comm),
                    member.holder_pid,
                    member.held_ms / 1000
                ))?;
            }
            f.write_str("\n")?;
        }
        Ok(())
    }
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(vfio_core_group_debugfs)]
mod tests {
    use kernel::sync::aref::ARef;
    use kernel_ext::{
        iommu::{
            Group as IommuGroup,
            SoftwareGroup, //
        },
        iommu_driver::GroupType, //
    };

    use super::*;
    use crate::group::registry::SOFTWARE_GROUP;

    fn has_file(group: &Group) -> bool {
        let files = DEBUGFS_FILES.lock();
        files.shows(group.id, Some(group)) && files.files.get(&group.id).is_some_and(File::exists)
    }

    #[test]
    fn group_that_is_created_again_has_a_file() -> Result {
        let iommu_group: ARef<IommuGroup> = SoftwareGroup::new(SOFTWARE_GROUP)?.into();
        let id = iommu_group.id();
        let register = || -> Result<_> {
            let group = Group::new(iommu_group.clone(), GroupType::Emulated)?;
            GROUPS.lock().add(group.clone(), None)?;
            update(id);
            Ok(group)
        };
        let first = register()?;
        assert!(has_file(&first));
        let ended = GROUPS.lock().leave(&first).ok_or(EINVAL)?;
        // The first group still has its file.
        let second = register()?;
        assert!(has_file(&second));
        drop(ended);
        assert!(has_file(&second));
        let ended = GROUPS.lock().leave(&second).ok_or(EINVAL)?;
        drop(ended);
        assert!(!has_file(&second));
        Ok(())
    }
}
