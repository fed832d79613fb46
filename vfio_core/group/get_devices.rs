// SPDX-License-Identifier: GPL-2.0

//! All devices of a group, with or without a VFIO driver, and how each one affects the group: for
//! `VFIO_GROUP_GET_DEVICES` and for debugfs.

use core::ops::Deref;

use iommu_group::Binding;
use kernel::{
    device::Device as Parent,
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};
use kernel_ext::{
    bindings::{
        self,
        vfio_group_device,
        vfio_group_devices, //
    },
    uapi::{
        self,
        Argument, //
    }, //
};

use super::{
    holder::{
        Holder,
        SeenHolder, //
    },
    Group,
    GroupState, //
};
use crate::device::Device;

/// Size in bytes of `struct vfio_group_devices` without the array of devices.
const HEADER_SIZE: usize = core::mem::size_of::<vfio_group_devices>();
/// Size in bytes of each device.
const DEVICE_SIZE: usize = core::mem::size_of::<vfio_group_device>();

/// The devices and the users of a group at one point in time.
pub(super) struct Snapshot {
    pub(super) viable: bool,
    pub(super) in_container: bool,
    pub(super) holder: Option<SeenHolder>,
    pub(super) members: KVec<vfio_group_device>,
}

/// A device that is registered with VFIO.
struct Offered {
    /// The address of the parent.
    parent: *const Parent,
    described: vfio_group_device,
}

impl Group {
    /// `VFIO_GROUP_GET_DEVICES`, of the group's file or of the file of one of its devices
    pub(crate) fn get_devices(&self, arg: UserPtr) -> Result {
        let mut header = vfio_group_devices::read(arg)?;
        let room = (header.argsz as usize)
            .checked_sub(HEADER_SIZE)
            .ok_or(EINVAL)?;
        if header.flags != 0 {
            return Err(EINVAL);
        }
        let members = self.snapshot(self.state.lock())?.members;
        let devices = arg.wrapping_byte_add(HEADER_SIZE);
        let mut writer = UserSlice::new(devices, room).writer();
        for member in members.iter().take(room / DEVICE_SIZE) {
            writer.write(member)?;
        }
        header.argsz = (HEADER_SIZE + members.len() * DEVICE_SIZE) as u32;
        header.count = members.len() as u32;
        uapi::write(arg, &header)
    }

    /// Returns a snapshot of the group and all its devices. `state` is the group's own.
    ///
    /// # Errors
    ///
    /// Returns `ENODEV` after the last device has left; `ENOMEM`.
    pub(super) fn snapshot(&self, state: impl Deref<Target = GroupState>) -> Result<Snapshot> {
        let iommu_group = state.iommu_group.clone().ok_or(ENODEV)?;
        let mut offered = KVec::new();
        for (_, device) in self.devices.lock().iter() {
            let holder = match state.holder_of(device) {
                Some(holder) => Some(holder.seen()),
                None => self.users.lock().holder_of(device).map(Holder::seen),
            };
            let described = describe_offered(device, holder);
            let parent = device.parent();
            offered.push(Offered { parent, described }, GFP_KERNEL)?;
        }
        let mut snapshot = Snapshot {
            viable: state.is_viable()?,
            in_container: state.iommu.is_some(),
            holder: self.users.lock().of_group().map(Holder::seen),
            members: KVec::new(),
        };
        drop(state);
        iommu_group.for_each_device(|parent| {
            let mut offered = offered.iter_mut();
            let member = match offered.find(|o| core::ptr::eq(o.parent, parent)) {
                Some(offered) => core::mem::take(&mut offered.described),
                None => describe_other(parent),
            };
            snapshot.members.push(member, GFP_KERNEL)?;
            Ok(())
        })?;
        Ok(snapshot)
    }
}

/// Describes a device that is registered with VFIO.
fn describe_offered(device: &Device, holder: Option<SeenHolder>) -> vfio_group_device {
    let mut member = named(device.parent());
    member.state = bindings::VFIO_GROUP_DEVICE_VFIO;
    if let Binding::Kernel(driver) | Binding::Unmanaged(driver) = Binding::of(device.parent()) {
        copy_string(&mut member.driver, driver.as_str().as_bytes());
    }
    if let Some(holder) = holder {
        member.holder_pid = holder.pid;
        member.holder_comm = holder.comm;
        member.held_ms = holder.held_ms;
    }
    member
}

/// Describes a device that is not registered with VFIO.
fn describe_other(parent: &Parent) -> vfio_group_device {
    let mut member = named(parent);
    let (state, driver) = match Binding::of(parent) {
        Binding::Unbound => (bindings::VFIO_GROUP_DEVICE_UNBOUND, None),
        Binding::Kernel(driver) => (bindings::VFIO_GROUP_DEVICE_KERNEL, Some(driver)),
        Binding::Unmanaged(driver) => (bindings::VFIO_GROUP_DEVICE_UNMANAGED, Some(driver)),
        Binding::Changing => (bindings::VFIO_GROUP_DEVICE_CHANGING, None),
    };
    member.state = state;
    if let Some(driver) = driver {
        copy_string(&mut member.driver, driver.as_str().as_bytes());
    }
    member
}

/// Returns a description that has only the name of the device.
fn named(parent: &Parent) -> vfio_group_device {
    let mut member = vfio_group_device::default();
    copy_string(&mut member.name, parent.name().to_bytes());
    member
}

/// Copies a string to a field. Truncates it so that at least one zero byte remains at the end.
fn copy_string(field: &mut [u8], string: &[u8]) {
    let length = string.len().min(field.len() - 1);
    field[..length].copy_from_slice(&string[..length]);
}
