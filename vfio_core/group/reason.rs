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
    GroupIommu,
    GroupState, //
};
use crate::device::Device;

/// The reason why a request fails.
#[derive(Clone, Copy)]
pub(super) enum Reason {
    /// The group has a user.
    OpenBy(HolderLabel),
    /// A device of the group is open.
    DeviceOpenBy(HolderLabel),
    /// The group is in a container.
    InContainer,
    /// The group is in an iommufd.
    InIommufd,
    /// The device is open in another iommufd than that which the group is in now.
    InFormerIommufd,
    /// Another device of the group is bound to another iommufd.
    PeerInOtherIommufd,
    /// The group has no IOMMU, but its iommufd translates addresses.
    Translated,
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
            Self::OpenBy(_) | Self::DeviceOpenBy(_) | Self::InFormerIommufd => EBUSY,
            Self::NoRight | Self::ForeignContainer | Self::Translated => EPERM,
            Self::PeerInOtherIommufd => EPERM,
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
            Self::InIommufd => {
                f.write_str("it is in an iommufd; use VFIO_GROUP_UNSET_CONTAINER first")
            }
            Self::InFormerIommufd => f.write_str(
                "it is open in an iommufd that the group has left; close it there first",
            ),
            Self::PeerInOtherIommufd => f.write_str(
                "another device of the group is bound to another iommufd; use the same iommufd",
            ),
            Self::Translated => f.write_str(
                "it has no IOMMU, but the iommufd translates addresses for VFIO containers; use another iommufd",
            ),
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
        if let Reason::DeviceOpenBy(_) = reason {
            if let Some(session) = state.sessions.first() {
                return print(session.opened.device(), group.id(), request, reason);
            }
            // The device may have left the group already. It stays registered while it has a user.
            let users = self.users.lock();
            if let Some(device) = users.device() {
                return print(device, group.id(), request, reason);
            }
        }
        let devices = self.devices.lock();
        let first = devices.iter().next();
        if let Some((_, device)) = first {
            print(device, group.id(), request, reason);
        }
    }

    /// Logs why `device`, which is in this group, can't be bound to an iommufd. Returns the
    /// matching error. The message is rate-limited.
    pub(super) fn refuse_bind(&self, device: &Device, reason: Reason) -> Error {
        if may_warn() {
            print(device, self.id, "VFIO_DEVICE_BIND_IOMMUFD", reason);
        }
        reason.error()
    }
}

fn print(device: &Device, group: i32, request: &str, reason: Reason) {
    dev_warn!(
        device.parent(),
        "group {}: {} refused: {}\n",
        group,
        request,
        reason
    );
}

impl GroupState {
    /// Returns the reason why the group can't join a container or an iommufd, if it is in one.
    pub(super) fn joined(&self) -> Option<Reason> {
        Some(match self.iommu.as_ref()? {
            GroupIommu::Container(_) => Reason::InContainer,
            GroupIommu::Iommufd(_) => Reason::InIommufd,
        })
    }

    /// Returns whether the group can leave its container or iommufd. It can leave an iommufd at any
    /// time, because devices that are open stay bound to it.
    ///
    /// # Errors
    ///
    /// Returns the reason if the group is in neither, or is in a container and one of its devices
    /// is open.
    pub(super) fn may_leave(&self) -> Result<(), Reason> {
        match self.iommu {
            None => return Err(Reason::NoContainer),
            Some(GroupIommu::Iommufd(_)) => return Ok(()),
            Some(GroupIommu::Container(_)) => {}
        }
        match self.session_in_container() {
            Some(session) => Err(Reason::DeviceOpenBy(session.holder.label())),
            None => Ok(()),
        }
    }
}
