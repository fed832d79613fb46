// SPDX-License-Identifier: GPL-2.0

//! The file of a group, `/dev/vfio/N`.

use kernel::{
    fs::{
        File,
        LocalFile, //
    },
    prelude::*,
    sync::Arc,
    uaccess::UserPtr, //
};
use kernel_ext::{
    bindings,
    compat::EBADFD,
    file_ops::{
        FileOperations,
        FileTable,
        Node,
        OpenNode, //
    },
    iommu_driver::GroupType,
    iommufd::Context,
    task::Capability,
    uapi::{
        self,
        ioctl,
        Argument, //
    }, //
};

use super::{
    holder::User,
    reason::Reason,
    Group, //
};
use crate::container::Container;

/// An open group. Dropping it allows the group to be opened again.
///
/// Open devices hold a reference to the file, so no device is open at that time.
pub(super) struct OpenGroup {
    group: Arc<Group>,
    /// `None` while the file is being released.
    user: Option<User>,
}

pub(super) static FILES: FileTable<GroupFile, Node> = FileTable::node();

/// Returns the group of `file`, or `None` if `file` is not a group's file.
pub(crate) fn file_group(file: &LocalFile) -> Option<&Arc<Group>> {
    Some(&FILES.data(file)?.group)
}

/// The file operations of a group.
pub(super) struct GroupFile;

impl OpenNode for GroupFile {
    type Node = Arc<Group>;

    fn open(group: &Arc<Group>) -> Result<KBox<OpenGroup>> {
        let slot = KBox::new_uninit(GFP_KERNEL)?;
        Ok(KBox::write(slot, OpenGroup::open(group)?))
    }
}

#[vtable]
impl FileOperations for GroupFile {
    type OwnerModule = crate::LocalModule;
    type Data = KBox<OpenGroup>;

    #[inline]
    fn ioctl(open: &OpenGroup, file: &File, cmd: u32, arg: usize) -> Result<isize> {
        let group = &open.group;
        let number = arg;
        let arg = UserPtr::from_addr(arg);
        match cmd {
            ioctl::VFIO_GROUP_GET_STATUS => group.get_status(arg),
            ioctl::VFIO_GROUP_SET_CONTAINER => group.set_container(arg),
            ioctl::VFIO_GROUP_UNSET_CONTAINER => group.unset_container(),
            ioctl::VFIO_GROUP_GET_DEVICE_FD => return Group::get_device_fd(group, file, arg),
            ioctl::VFIO_GROUP_GET_DEVICES => group.get_devices(arg),
            ioctl::VFIO_GROUP_MERGE => group.merge(arg),
            ioctl::VFIO_GROUP_UNMERGE => group.unmerge(),
            ioctl::VFIO_GROUP_GET_IOMMU_FD => return group.get_iommu_fd(number),
            ioctl::VFIO_GROUP_GET_MSI_FD => return group.backend_ioctl(cmd, arg),
            _ => Err(ENOTTY),
        }
        .map(|()| 0)
    }
}

impl OpenGroup {
    /// Makes the caller the group's only user.
    ///
    /// # Errors
    ///
    /// Returns `EBUSY` if the group or one of its devices has a user; `ENODEV` after the last device
    /// has left; `EPERM` if the group has no IOMMU and the caller lacks `CAP_SYS_RAWIO`.
    fn open(group: &Arc<Group>) -> Result<Self> {
        let state = group.state.lock();
        if state.iommu_group.is_none() {
            return Err(ENODEV);
        }
        if group.kind == GroupType::NoIommu && !Capability::SysRawio.held() {
            return Err(group.fail(&state, "open", Reason::NoRight));
        }
        match User::claim(group) {
            Ok(user) => Ok(Self {
                group: group.clone(),
                user: Some(user),
            }),
            Err(reason) => Err(group.fail(&state, "open", reason)),
        }
    }
}

impl Drop for OpenGroup {
    fn drop(&mut self) {
        let mut state = self.group.state.lock();
        state.leave();
        // The user is dropped with `state` locked, so that a thread that waits for `state` to open
        // the group finds no user.
        drop(self.user.take());
    }
}

impl Group {
    fn get_status(&self, arg: UserPtr) -> Result {
        let mut status = bindings::vfio_group_status::read(arg)?;
        status.flags = self.status_flags()?;
        status.write(arg)
    }

    fn status_flags(&self) -> Result<u32> {
        let state = self.state.lock();
        let mut flags = 0;
        if state.is_viable()? {
            flags |= bindings::VFIO_GROUP_FLAGS_VIABLE;
        }
        if state.iommu.is_some() {
            flags |= bindings::VFIO_GROUP_FLAGS_CONTAINER_SET;
        }
        Ok(flags)
    }

    fn set_container(&self, arg: UserPtr) -> Result {
        let fd: i32 = uapi::read(arg)?;
        let file = LocalFile::fget(fd as u32)?;
        let mut state = self.state.lock();
        if let Some(reason) = state.joined() {
            return Err(self.fail(&state, "VFIO_GROUP_SET_CONTAINER", reason));
        }
        if state.iommu_group.is_none() {
            return Err(ENODEV);
        }
        match Container::from_file(&file) {
            Some(container) => self.join_container(&mut state, &container.into()),
            None => {
                let context = Context::of_file(&file).map_err(|_| EBADFD)?;
                self.join_iommufd(&mut state, context)
            }
        }
    }

    /// Forwards a request to the address space's backend, which may support it.
    fn backend_ioctl(&self, cmd: u32, arg: UserPtr) -> Result<isize> {
        let container = self.state.lock().container().cloned();
        let iommu = container.and_then(|c| c.iommu()).ok_or(EINVAL)?;
        iommu.ioctl(cmd, arg.as_const_ptr() as usize)
    }

    fn unset_container(&self) -> Result {
        let mut state = self.state.lock();
        state
            .may_leave()
            .map_err(|reason| self.fail(&state, "VFIO_GROUP_UNSET_CONTAINER", reason))?;
        state.leave();
        Ok(())
    }
}
