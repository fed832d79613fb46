// SPDX-License-Identifier: GPL-2.0

//! The users of groups and of their devices, and who they are, for log messages and for requests
//! that report them.

use kernel::{
    fmt,
    prelude::*,
    str::BStr,
    sync::{
        aref::ARef,
        Arc, //
    },
    time::{
        Instant,
        Monotonic, //
    }, //
};
use kernel_ext::{
    iommu_driver::GroupType,
    iommufd::Context,
    task::{
        ProcessId,
        TaskLabel, //
    }, //
};

use super::{
    reason::Reason,
    Group, //
};
use crate::device::Device;

/// The task that opened a group or device, and the time at which it did.
pub(crate) struct Holder {
    task: TaskLabel,
    process: ProcessId,
    since: Instant<Monotonic>,
}

impl Holder {
    /// Creates a holder for the calling task, starting now.
    pub(crate) fn current() -> Self {
        Self {
            task: TaskLabel::current(),
            process: ProcessId::current(),
            since: Instant::now(),
        }
    }

    /// Returns the time since the open, in milliseconds.
    fn held_ms(&self) -> u64 {
        self.since.elapsed().as_millis().unsigned_abs()
    }

    /// Returns the holder in the form used by log messages.
    pub(super) fn label(&self) -> HolderLabel {
        HolderLabel {
            task: self.task,
            exited: self.process.has_exited(),
            seconds: self.held_ms() / 1000,
        }
    }

    /// Returns the information about the holder that the calling process may see.
    pub(super) fn seen(&self) -> SeenHolder {
        SeenHolder {
            pid: self.process.number_for_current().unwrap_or(0),
            comm: self.task.comm(),
            held_ms: self.held_ms().max(1),
        }
    }
}

/// A holder in the form used by log messages, with its PID in the initial PID namespace.
#[derive(Clone, Copy)]
pub(super) struct HolderLabel {
    task: TaskLabel,
    exited: bool,
    seconds: u64,
}

impl fmt::Display for HolderLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exited = if self.exited {
            ", which has exited and left it to another process"
        } else {
            ""
        };
        f.write_fmt(fmt!("{}{exited}, for {} s", self.task, self.seconds))
    }
}

/// A holder in the form that one process may see.
#[derive(Clone, Copy)]
pub(super) struct SeenHolder {
    /// The PID in that process's PID namespace, or zero if the holder is not visible there, or has
    /// exited.
    pub(super) pid: u32,
    /// The name of the task, padded with zero bytes.
    pub(super) comm: [u8; 16],
    /// The time since the open in milliseconds, at least one.
    pub(super) held_ms: u64,
}

impl fmt::Display for SeenHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.comm.iter().position(|&c| c == 0);
        let name = BStr::from_bytes(&self.comm[..length.unwrap_or(self.comm.len())]);
        let seconds = self.held_ms / 1000;
        f.write_fmt(fmt!("{} ({}), for {} s", name, self.pid, seconds))
    }
}

/// The users of a group: one of the whole group, or those that use devices of the group through
/// files of their own.
///
/// Becoming a user takes only the lock of this structure, which is held briefly. It does not wait
/// for requests of another user, which hold the group's `state` and which userspace can prolong at
/// will.
pub(super) struct Users {
    /// The process that opened the group's file, or a thread that moves a device to another group.
    group: Option<Holder>,
    /// One entry for each [`DeviceUser`].
    devices: KVec<DeviceEntry>,
    next_id: u64,
}

/// A process that uses a device through the device's own file, or is about to.
struct DeviceEntry {
    id: u64,
    device: ARef<Device>,
    holder: Holder,
    /// Set when the device is about to be bound.
    context: Option<Context>,
}

impl Users {
    pub(super) const fn new() -> Self {
        Self {
            group: None,
            devices: KVec::new(),
            next_id: 0,
        }
    }

    /// Returns the user of the whole group.
    pub(super) fn of_group(&self) -> Option<&Holder> {
        self.group.as_ref()
    }

    /// Returns a device that is used through its own file.
    pub(super) fn device(&self) -> Option<&Device> {
        Some(&self.devices.first()?.device)
    }

    /// Returns the process that uses `device` through its own file.
    pub(super) fn holder_of(&self, device: &Device) -> Option<&Holder> {
        let same =
            |entry: &&DeviceEntry| entry.context.is_some() && core::ptr::eq(&*entry.device, device);
        Some(&self.devices.iter().find(same)?.holder)
    }
}

/// The only user of a group, until the value is dropped: `opened_file` of `struct vfio_group`.
///
/// # Invariants
///
/// The group's user was set for this value.
pub(super) struct User(Arc<Group>);

impl User {
    /// Makes the caller the user of `group`, or returns why it can't be: a current user.
    pub(super) fn claim(group: &Arc<Group>) -> Result<Self, Reason> {
        let mut users = group.users.lock();
        if let Some(holder) = &users.group {
            return Err(Reason::OpenBy(holder.label()));
        }
        if let Some(entry) = users.devices.first() {
            return Err(Reason::DeviceOpenBy(entry.holder.label()));
        }
        users.group = Some(Holder::current());
        // INVARIANT: The user was set above.
        Ok(Self(group.clone()))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let former = self.0.users.lock().group.take();
        drop(former);
    }
}

/// A group in which no device is open, until the value is dropped: the calling thread claimed it
/// when it had no users, and opens no device.
pub(crate) struct IdleGroup(User);

impl IdleGroup {
    /// Makes the caller the user of `group`.
    ///
    /// # Errors
    ///
    /// Returns `EBUSY` if the group has a user.
    pub(super) fn claim(group: &Arc<Group>) -> Result<Self> {
        User::claim(group).map(Self).map_err(|_| EBUSY)
    }

    /// Returns the group.
    pub(crate) fn group(&self) -> &Arc<Group> {
        &self.0 .0
    }
}

/// A user of a device through the device's own file, until the value is dropped: counted in
/// `cdev_device_open_cnt` of `struct vfio_group`. Meanwhile the group has no other kind of user.
///
/// # Invariants
///
/// One entry of the group's users has this `id`.
pub(crate) struct DeviceUser {
    group: Arc<Group>,
    id: u64,
}

impl DeviceUser {
    /// Makes the caller a user of `device`, which was in `group` when the caller looked.
    ///
    /// # Errors
    ///
    /// Returns `EBUSY` if the group has a user, which the log names; `ENOMEM`.
    pub(super) fn claim(group: &Arc<Group>, device: &Device) -> Result<Self> {
        let mut users = group.users.lock();
        if let Some(holder) = &users.group {
            let reason = Reason::OpenBy(holder.label());
            drop(users);
            return Err(group.refuse_bind(device, reason));
        }
        let id = users.next_id;
        users.next_id = id.wrapping_add(1);
        let entry = DeviceEntry {
            id,
            device: device.into(),
            holder: Holder::current(),
            context: None,
        };
        users.devices.push(entry, GFP_KERNEL)?;
        // INVARIANT: The entry was just added.
        Ok(Self {
            group: group.clone(),
            id,
        })
    }

    /// Records that the device, which is `device`, is used with `context`.
    ///
    /// # Errors
    ///
    /// Returns `EPERM` if another device of an emulated group is used with another iommufd, since
    /// the group's devices are not isolated from each other. IOMMUFD itself ensures this for other
    /// groups. The log has the reason.
    pub(crate) fn use_iommufd(&mut self, device: &Device, context: &Context) -> Result {
        let mut users = self.group.users.lock();
        let elsewhere = |entry: &DeviceEntry| {
            let other = entry.context.as_ref();
            entry.id != self.id && other.is_some_and(|other| other != context)
        };
        if self.group.kind == GroupType::Emulated && users.devices.iter().any(elsewhere) {
            drop(users);
            let reason = Reason::PeerInOtherIommufd;
            return Err(self.group.refuse_bind(device, reason));
        }
        let mut entries = users.devices.iter_mut();
        if let Some(entry) = entries.find(|entry| entry.id == self.id) {
            entry.context = Some(context.clone());
        }
        Ok(())
    }

    /// Records that the device is not used with an iommufd any more. The caller holds the lock of
    /// the device's set, so that the next user of the device does not find it in this iommufd.
    pub(crate) fn leave_iommufd(&mut self) {
        let id = self.id;
        let take = |users: &mut Users| {
            let entry = users.devices.iter_mut().find(|entry| entry.id == id)?;
            entry.context.take()
        };
        // The reference is dropped after the lock is released.
        let _former = take(&mut self.group.users.lock());
    }
}

impl Drop for DeviceUser {
    fn drop(&mut self) {
        let mut users = self.group.users.lock();
        let place = users.devices.iter().position(|entry| entry.id == self.id);
        let entry = place.map(|place| users.devices.remove(place));
        drop(users);
        drop(entry);
    }
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(vfio_core_group_holder)]
mod tests {
    use kernel_ext::{
        iommu::SoftwareGroup,
        iommu_driver::GroupType, //
    };

    use super::*;
    use crate::group::{
        abi::GROUPS,
        registry::SOFTWARE_GROUP, //
    };

    fn group() -> Result<Arc<Group>> {
        Group::new(
            SoftwareGroup::new(SOFTWARE_GROUP)?.into(),
            GroupType::Emulated,
        )
    }

    #[test]
    fn one_at_a_time_whatever_requests_are_under_way() -> Result {
        let group = group()?;
        let request = group.state.lock();
        let user = User::claim(&group).map_err(|_| EBUSY)?;
        assert!(User::claim(&group).is_err());
        drop(user);
        assert!(User::claim(&group).is_ok());
        drop(request);
        Ok(())
    }

    #[test]
    fn group_ends_without_the_table() -> Result {
        let group = group()?;
        GROUPS.lock().add(group.clone(), None)?;
        let ended = GROUPS.lock().leave(&group).ok_or(EINVAL)?;
        // Removing the group under the registry's lock did not wait for `state`, so the group is
        // not revoked yet.
        assert!(group.state.lock().iommu_group.is_some());
        drop(ended);
        assert!(group.state.lock().iommu_group.is_none());
        Ok(())
    }
}
