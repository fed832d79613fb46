// SPDX-License-Identifier: GPL-2.0

//! Merged groups, which share one address space without passing a container between processes.
//!
//! The interface is defined in `include/uapi/vfio_group.h`. Groups share an address space by being
//! in the same container. A group merged here is in the same state as one that joined the container
//! by `VFIO_GROUP_SET_CONTAINER`.

use kernel::{
    fs::{
        file::FileDescriptorReservation,
        LocalFile, //
    },
    prelude::*,
    sync::Arc,
    uaccess::UserPtr, //
};
use kernel_ext::{
    bindings,
    mutex::lock_both,
    uapi, //
};

use super::{
    file_group,
    reason::Reason,
    Group,
    GroupIommu,
    GroupState, //
};
use crate::container::{
    Container,
    Handle, //
};

impl Group {
    /// `VFIO_GROUP_MERGE`
    pub(super) fn merge(&self, arg: UserPtr) -> Result {
        let fd: i32 = uapi::read(arg)?;
        let fd = u32::try_from(fd).map_err(|_| EINVAL)?;
        let file = LocalFile::fget(fd)?;
        let other = file_group(&file).ok_or(EINVAL)?;
        let (mut state, mut others) = lock_both(&self.state, &other.state).ok_or(EINVAL)?;
        if let Some(reason) = others.joined() {
            return Err(other.fail(&others, "VFIO_GROUP_MERGE", reason));
        }
        self.with_container("VFIO_GROUP_MERGE", &mut state, |container| {
            other
                .join_container(&mut others, container)
                .map_err(busy_if_in_use)
        })
    }

    /// `VFIO_GROUP_UNMERGE`
    pub(super) fn unmerge(&self) -> Result {
        let mut state = self.state.lock();
        let alone = |container: &Arc<Container>| container.members() < 2;
        let reason = match state.may_leave() {
            Ok(()) if state.leave_container(|members| members > 1) => return Ok(()),
            _ if matches!(state.iommu, Some(GroupIommu::Iommufd(_))) => Reason::InIommufd,
            Ok(()) => Reason::Alone,
            Err(_) if state.container().is_some_and(alone) => Reason::Alone,
            Err(reason) => reason,
        };
        Err(self.fail(&state, "VFIO_GROUP_UNMERGE", reason))
    }

    /// `VFIO_GROUP_GET_IOMMU_FD`. `extension` is the type of the address space, or 0 for any.
    pub(super) fn get_iommu_fd(&self, extension: usize) -> Result<isize> {
        let fd = FileDescriptorReservation::get_unused_fd_flags(bindings::O_CLOEXEC)?;
        let mut state = self.state.lock();
        let foreign = |container: &Arc<Container>| !container.is_reached_by_groups();
        if state.container().is_some_and(foreign) {
            let reason = Reason::ForeignContainer;
            return Err(self.fail(&state, "VFIO_GROUP_GET_IOMMU_FD", reason));
        }
        let file = self.with_container("VFIO_GROUP_GET_IOMMU_FD", &mut state, |container| {
            let file = Container::open_file(container.clone())?;
            container.ensure_iommu(Some(extension).filter(|&extension| extension != 0))?;
            Ok(file)
        })?;
        drop(state);
        let number = fd.reserved_fd();
        fd.fd_install(file);
        Ok(number as isize)
    }

    /// Calls `f` with the group's container, for `request`. If the group is in no container, creates
    /// one for it, and removes the group again if `f` fails. The caller holds `state` throughout, so
    /// no other request uses a container that is removed.
    fn with_container<T>(
        &self,
        request: &str,
        state: &mut GroupState,
        f: impl FnOnce(&Arc<Container>) -> Result<T>,
    ) -> Result<T> {
        match &state.iommu {
            Some(GroupIommu::Container(container)) => return f(container),
            Some(GroupIommu::Iommufd(_)) => {
                return Err(self.fail(state, request, Reason::InIommufd));
            }
            None => {}
        }
        let container = Container::new(Handle::Groups)?;
        self.join_container(state, &container)
            .map_err(busy_if_in_use)?;
        f(&container).inspect_err(|_| {
            state.leave_container(|_| true);
        })
    }
}

/// Maps `EPERM` to `EBUSY`, which the requests in this file return for a group that is in use
/// elsewhere.
fn busy_if_in_use(error: Error) -> Error {
    if error == EPERM {
        EBUSY
    } else {
        error
    }
}
