// SPDX-License-Identifier: GPL-2.0

//! Opening and closing the devices of a group.
//!
//! `open_count` of a device is the number of its files; the lock of its device set protects it. A
//! group has one [`Session`] for each open device, with the references that the device needs;
//! `Group::state` protects them.

use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    fs::{
        file::FileDescriptorReservation,
        File, //
    },
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    },
    uaccess::UserPtr, //
};
use kernel_ext::{
    anon_file,
    bindings,
    iommu_driver::GroupType,
    mm::may_warn,
    module::ModuleRef,
    task::{
        Capability,
        TaskLabel, //
    },
    user_string::UserString, //
};

use super::{
    holder::Holder,
    reason::Reason,
    Group,
    GroupState,
    Translation, //
};
use crate::{
    device::{
        file::FILES,
        registration::RegistrationRef,
        set::Opened,
        Device, //
    },
    kvm::Kvm, //
};

/// The references that an open device holds from its first open to its last close.
pub(super) struct Session {
    pub(super) device: ARef<Device>,
    pub(super) holder: Holder,
    opened: Opened,
    _driver: ModuleRef,
    _group_file: ARef<File>,
}

/// One open of a device. Dropping it undoes the open, then drops the reference to the device's
/// registration.
pub(crate) struct OpenDevice {
    device: RegistrationRef,
    group: Arc<Group>,
}

impl OpenDevice {
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }
}

impl Drop for OpenDevice {
    fn drop(&mut self) {
        self.group.close_device(&self.device);
    }
}

/// Logs that the current task has opened a device without an IOMMU. The message is rate-limited
/// because userspace can trigger it at will.
fn warn_noiommu(device: &Device) {
    if may_warn() {
        let user = TaskLabel::current();
        dev_warn!(
            device.parent(),
            "vfio-noiommu device opened by user ({}:{})\n",
            user.name(),
            user.pid()
        );
    }
}

impl Group {
    /// `VFIO_GROUP_GET_DEVICE_FD`: opens the device that the name at `arg` selects, and returns its
    /// file descriptor. `group_file` is the group's file that the caller used.
    pub(super) fn get_device_fd(
        group: &Arc<Group>,
        group_file: &File,
        arg: UserPtr,
    ) -> Result<isize> {
        let mut name = UserString::copy(arg, PAGE_SIZE)?;
        let find = |device: &ARef<Device>| match device.matches(&mut name) {
            Ok(false) => None,
            Ok(true) => device.try_get_registration().map(Ok),
            Err(e) => Some(Err(e)),
        };
        let device = group.devices.lock().iter().find_map(find).ok_or(ENODEV)??;
        let fd = FileDescriptorReservation::get_unused_fd_flags(bindings::O_CLOEXEC)?;
        let number = fd.reserved_fd();
        let open = Group::open_device(group, device, group_file)?;
        let file = anon_file::open_mapped(&FILES, c"[vfio-device]", open)?;
        if let Some(open) = FILES
            .data(&file)
            .filter(|_| group.kind == GroupType::NoIommu)
        {
            warn_noiommu(open.device());
        }
        fd.fd_install(file);
        Ok(number as isize)
    }

    /// Opens `device` of `group`, for the first time or again. `group_file` is the group's file
    /// that the caller used.
    ///
    /// # Errors
    ///
    /// Returns `EINVAL` if the group has no container or the container no address space; `EPERM` if
    /// the group has no IOMMU and the caller lacks `CAP_SYS_RAWIO`; `ENODEV` if the driver is being
    /// unbound or unloaded; `ENOMEM`; or the driver's error.
    fn open_device(
        group: &Arc<Group>,
        device: RegistrationRef,
        group_file: &File,
    ) -> Result<KBox<OpenDevice>> {
        const REQUEST: &str = "VFIO_GROUP_GET_DEVICE_FD";
        let slot = KBox::new_uninit(GFP_KERNEL_ACCOUNT)?;
        let mut state = group.state.lock();
        let Some(container) = state.container.clone() else {
            return Err(group.fail(&state, REQUEST, Reason::NoContainer));
        };
        let mut set = device.lock_set();
        if !set.add_file() {
            state.sessions.reserve(1, GFP_KERNEL)?;
            let driver = device.driver_module().ok_or(ENODEV)?;
            let Some(iommu) = container.iommu() else {
                return Err(group.fail(&state, REQUEST, Reason::NoAddressSpace));
            };
            if group.kind == GroupType::NoIommu && !Capability::SysRawio.held() {
                return Err(group.fail(&state, REQUEST, Reason::NoRight));
            }
            let translation = Translation {
                iommu: iommu.clone(),
                group: state.iommu_group.clone().ok_or(ENODEV)?,
            };
            let former = group.translation.lock().replace(translation);
            drop(former);
            let kvm = group.kvm.lock().as_ref().and_then(Kvm::get);
            let opened = set
                .open(iommu, kvm)
                .inspect_err(|_| group.drop_translation_if_closed(&state))?;
            let session = Session {
                device: (&*device).into(),
                holder: Holder::current(),
                opened,
                _driver: driver,
                _group_file: group_file.into(),
            };
            state.sessions.push(session, GFP_KERNEL)?;
        }
        drop(set);
        drop(state);
        let group = group.clone();
        Ok(KBox::write(slot, OpenDevice { device, group }))
    }

    /// Undoes one [`Group::open_device`].
    fn close_device(&self, device: &RegistrationRef) {
        let mut state = self.state.lock();
        let mut set = device.lock_set();
        if set.remove_file() {
            return;
        }
        let same = |session: &Session| core::ptr::eq(&*session.device, &**device);
        let index = state.sessions.iter().position(same);
        let Some(Ok(session)) = index.map(|index| state.sessions.remove(index)) else {
            return;
        };
        set.close(session.opened);
        self.drop_translation_if_closed(&state);
    }

    /// Drops the address space for drivers if no device is open.
    fn drop_translation_if_closed(&self, state: &GroupState) {
        if state.sessions.is_empty() {
            let last = self.translation.lock().take();
            drop(last);
        }
    }
}
