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
    uapi, //
};

use super::{
    file_group,
    reason::Reason,
    Group, //
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
        if core::ptr::eq(&**other, self) {
            return Err(EINVAL);
        }
        let (container, made) = self.container_on_demand()?;
        let joined = other.merge_into(&container);
        // This group may have left the container concurrently. The other group is then alone in the
        // container, as after a merge that is followed by an unmerge.
        if joined.is_err() && made {
            self.leave_if_alone(&container);
        }
        joined
    }

    /// `VFIO_GROUP_UNMERGE`
    pub(super) fn unmerge(&self) -> Result {
        let mut state = self.state.lock();
        let alone = |container: &Arc<Container>| container.members() < 2;
        let reason = match state.may_leave() {
            Ok(()) if state.leave_container(|members| members > 1) => return Ok(()),
            Ok(()) => Reason::Alone,
            Err(_) if state.container.as_ref().is_some_and(alone) => Reason::Alone,
            Err(reason) => reason,
        };
        Err(self.fail(&state, "VFIO_GROUP_UNMERGE", reason))
    }

    /// `VFIO_GROUP_GET_IOMMU_FD`
    pub(super) fn get_iommu_fd(&self) -> Result<isize> {
        let fd = FileDescriptorReservation::get_unused_fd_flags(bindings::O_CLOEXEC)?;
        let (container, made) = self.container_on_demand()?;
        if !container.is_reached_by_groups() {
            let reason = Reason::ForeignContainer;
            return Err(self.fail(&self.state.lock(), "VFIO_GROUP_GET_IOMMU_FD", reason));
        }
        let file = container
            .ensure_iommu(bindings::VFIO_TYPE1v2_IOMMU as usize)
            .and_then(|()| Container::open_file(container.clone()));
        let file = file.inspect_err(|_| {
            if made {
                self.leave_if_alone(&container);
            }
        })?;
        let number = fd.reserved_fd();
        fd.fd_install(file);
        Ok(number as isize)
    }

    /// Returns the group's container, and whether this call created it.
    fn container_on_demand(&self) -> Result<(Arc<Container>, bool)> {
        let mut state = self.state.lock();
        if let Some(container) = &state.container {
            return Ok((container.clone(), false));
        }
        let container = Container::new(Handle::Groups)?;
        self.join_container(&mut state, &container)
            .map_err(busy_if_in_use)?;
        Ok((container, true))
    }

    /// Undoes [`Group::container_on_demand`], unless the container is in use by now.
    fn leave_if_alone(&self, container: &Arc<Container>) {
        let mut state = self.state.lock();
        let same = |own: &Arc<Container>| Arc::ptr_eq(own, container);
        let ours = state.container.as_ref().is_some_and(same);
        if ours && state.sessions.is_empty() {
            state.leave_container(|members| members == 1);
        }
    }

    /// Adds the group to `container`. Fails if the group is already in a container.
    fn merge_into(&self, container: &Arc<Container>) -> Result {
        let mut state = self.state.lock();
        if state.container.is_some() {
            return Err(self.fail(&state, "VFIO_GROUP_MERGE", Reason::InContainer));
        }
        self.join_container(&mut state, container)
            .map_err(busy_if_in_use)
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
