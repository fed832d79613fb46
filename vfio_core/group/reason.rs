// SPDX-License-Identifier: GPL-2.0

//! Requests that fail because of a group's state. The caller gets an errno, and the log names the
//! reason for the administrator.

use kernel::{
    fmt,
    prelude::*, //
};
use kernel_ext::{
    iommu::Group as IommuGroup,
    mm::may_warn, //
};

use super::{
    holder::HolderLabel,
    Group,
    GroupState, //
};

/// The reason why a request fails.
#[derive(Clone, Copy)]
pub(super) enum Reason {
    /// The group has a user.
    OpenBy(HolderLabel),
    /// A device of the group is open.
    DeviceOpenBy(HolderLabel),
    /// The group is in a container.
    InContainer,
    /// The group is in no container.
    NoContainer,
    /// The group's container has no address space.
    NoAddressSpace,
    /// No other group is in the container.
    Alone,
    /// The group has no IOMMU, and the caller lacks the capability to use such a group.
    NoRight,
    /// The container was opened as `/dev/vfio/vfio`, so the group's file gives no access to it.
    ForeignContainer,
}

impl Reason {
    fn error(self) -> Error {
        match self {
            Self::OpenBy(_) | Self::DeviceOpenBy(_) => EBUSY,
            Self::NoRight | Self::ForeignContainer => EPERM,
            _ => EINVAL,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpenBy(holder) => {
                f.write_fmt(fmt!("it is open by {}; close it in that process", holder))
            }
            Self::DeviceOpenBy(holder) => f.write_fmt(fmt!(
                "its device is open by {}; close it in that process",
                holder
            )),
            Self::InContainer => {
                f.write_str("it is in a container; use VFIO_GROUP_UNSET_CONTAINER first")
            }
            Self::NoContainer => {
                f.write_str("it is in no container; use VFIO_GROUP_SET_CONTAINER first")
            }
            Self::NoAddressSpace => {
                f.write_str("its container has no address space; use VFIO_SET_IOMMU first")
            }
            Self::Alone => {
                f.write_str("no other group is in its container; use VFIO_GROUP_UNSET_CONTAINER")
            }
            Self::NoRight => f.write_str("it has no IOMMU; grant the process CAP_SYS_RAWIO"),
            Self::ForeignContainer => f.write_str(
                "its container was created by opening /dev/vfio/vfio; use that file descriptor",
            ),
        }
    }
}

impl Group {
    /// Logs why `request` fails, and returns the matching error.
    ///
    /// The message is printed for the open device if that is the reason, otherwise for the group's
    /// first device, so that it names a device and its driver. It is rate-limited because userspace
    /// can trigger it at will. The caller holds `state`.
    pub(super) fn fail(&self, state: &GroupState, request: &str, reason: Reason) -> Error {
        if let (Some(group), true) = (&state.iommu_group, may_warn()) {
            self.print(state, group, request, reason);
        }
        reason.error()
    }

    fn print(&self, state: &GroupState, group: &IommuGroup, request: &str, reason: Reason) {
        let open = match reason {
            Reason::DeviceOpenBy(_) => state.sessions.first().map(|session| &session.device),
            _ => None,
        };
        let devices = self.devices.lock();
        if let Some(device) = open.or(devices.first()) {
            dev_warn!(
                device.parent(),
                "group {}: {} refused: {}\n",
                group.id(),
                request,
                reason
            );
        }
    }
}

impl GroupState {
    /// Returns whether the group can leave its container.
    ///
    /// # Errors
    ///
    /// Returns the reason if the group is in no container or one of its devices is open.
    pub(super) fn may_leave(&self) -> Result<(), Reason> {
        if self.container.is_none() {
            return Err(Reason::NoContainer);
        }
        match self.sessions.first() {
            Some(session) => Err(Reason::DeviceOpenBy(session.holder.label())),
            None => Ok(()),
        }
    }
}
