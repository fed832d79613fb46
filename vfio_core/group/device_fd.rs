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
    types::ScopeGuard,
    uaccess::UserPtr, //
};
use kernel_ext::{
    anon_file,
    bindings,
    iommu::Group as IommuGroup,
    iommu_driver::GroupType,
    mm::may_warn,
    module::ModuleRef,
    task::{
        Capability,
        TaskLabel, //
    },
    user_string::UserString,
    vec_slot::VecSlot, //
};

use super::{
    holder::Holder,
    reason::Reason,
    Group,
    GroupIommu,
    GroupState,
    Translation, //
};
use crate::{
    device::{
        file::FILES,
        registration::RegistrationRef,
        set::{
            AddressSpace,
            OpenRef,
            Opened,
            SetGuard, //
        },
        Device, //
    },
    kvm::Kvm, //
};

/// The references that an open device holds from its first open to its last close.
pub(super) struct Session {
    pub(super) holder: Holder,
    pub(super) opened: Opened,
    _driver: ModuleRef,
    _group_file: ARef<File>,
}

/// One open of a device. Dropping it undoes the open.
pub(crate) type OpenDevice = ScopeGuard<Open, fn(Open)>;

/// What a file of a device holds.
pub(crate) struct Open {
    pub(crate) device: OpenRef,
    registration: RegistrationRef,
    group: Arc<Group>,
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

/// Attaches a device that was just opened to the address space that its iommufd has for VFIO
/// containers. Closes the device on failure.
fn attach(set: &mut SetGuard<'_>, (first, opened): (OpenRef, Opened)) -> Result<(OpenRef, Opened)> {
    let AddressSpace::Iommufd(context) = opened.space() else {
        return Ok((first, opened));
    };
    let attached = context
        .compat_ioas()
        .and_then(|mut ioas| set.attach_ioas(&opened, &mut ioas));
    match attached {
        Ok(()) => Ok((first, opened)),
        Err(e) => {
            set.close(first, opened);
            Err(e)
        }
    }
}

impl GroupState {
    /// Returns whether `device` may be opened in `iommu`. If it is open already, it must be open
    /// there. So must be all devices of an emulated group, which are not isolated from each other;
    /// IOMMUFD itself ensures this for other groups.
    fn opens_in(&self, device: &Device, kind: GroupType, iommu: &GroupIommu) -> bool {
        let matters =
            |session: &&Session| kind == GroupType::Emulated || session.opened.is_of(device);
        let mut sessions = self.sessions.iter().filter(matters);
        sessions.all(|session| match (session.opened.space(), iommu) {
            // A group with a device that is open in a container does not leave it.
            (AddressSpace::Container(_), GroupIommu::Container(_)) => true,
            (
                AddressSpace::Iommufd(former) | AddressSpace::Untranslated(former),
                GroupIommu::Iommufd(context),
            ) => former == context,
            _ => false,
        })
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
        let mut find = |device: &ARef<Device>| match device.matches(&mut name) {
            Ok(false) => None,
            Ok(true) => device.try_get_registration().map(Ok),
            Err(e) => Some(Err(e)),
        };
        let devices = group.devices.lock();
        let found = devices.iter().find_map(|(_, device)| find(device));
        let device = found.ok_or(ENODEV)??;
        drop(devices);
        let fd = FileDescriptorReservation::get_unused_fd_flags(bindings::O_CLOEXEC)?;
        let number = fd.reserved_fd();
        let open = Group::open_device(group, device, group_file)?;
        let file = anon_file::open_mapped(&FILES, c"[vfio-device]", open)?;
        if let Some(open) = FILES
            .data(&file)
            .filter(|_| group.kind == GroupType::NoIommu)
        {
            warn_noiommu(&open.device);
        }
        fd.fd_install(file);
        Ok(number as isize)
    }

    /// Opens `device` of `group`, for the first time or again. `group_file` is the group's file
    /// that the caller used.
    ///
    /// # Errors
    ///
    /// Returns `EINVAL` if the group has no container or iommufd, or the container no address
    /// space; `EPERM` if the group has no IOMMU, and the caller lacks `CAP_SYS_RAWIO` or the iommufd
    /// translates; `EBUSY` if the device is open in another iommufd; `ENODEV` if the driver is
    /// being unbound or unloaded; `ENOMEM`; or an error of the driver or of IOMMUFD.
    fn open_device(
        group: &Arc<Group>,
        device: RegistrationRef,
        group_file: &File,
    ) -> Result<KBox<OpenDevice>> {
        const REQUEST: &str = "VFIO_GROUP_GET_DEVICE_FD";
        let slot = KBox::new_uninit(GFP_KERNEL_ACCOUNT)?;
        let mut state = group.state.lock();
        let Some(iommu) = state.iommu.clone() else {
            return Err(group.fail(&state, REQUEST, Reason::NoContainer));
        };
        if !state.opens_in(&device, group.kind, &iommu) {
            return Err(group.fail(&state, REQUEST, Reason::InFormerIommufd));
        }
        let mut set = device.lock_set();
        let file = if let Some(file) = set.add_file() {
            file
        } else {
            let driver = device.driver_module().ok_or(ENODEV)?;
            let space = group
                .address_space(&iommu)
                .map_err(|reason| group.fail(&state, REQUEST, reason))?;
            let iommu_group = state.iommu_group.clone().ok_or(ENODEV)?;
            let slot = VecSlot::new(&mut state.sessions, GFP_KERNEL)?;
            group.set_translation(&space, iommu_group);
            let kvm = group.kvm.lock().as_ref().and_then(Kvm::get);
            let opened = set.open(space, kvm);
            match opened.and_then(|opened| attach(&mut set, opened)) {
                Ok((first, opened)) => {
                    slot.fill(Session {
                        holder: Holder::current(),
                        opened,
                        _driver: driver,
                        _group_file: group_file.into(),
                    });
                    first
                }
                Err(e) => {
                    group.drop_translation_if_closed(&state);
                    return Err(e);
                }
            }
        };
        drop(set);
        drop(state);
        let open = Open {
            device: file,
            registration: device,
            group: group.clone(),
        };
        let open = OpenDevice::new_with_data(open, Group::close_device);
        Ok(KBox::write(slot, open))
    }

    /// Undoes one [`Group::open_device`].
    fn close_device(open: Open) {
        let mut state = open.group.state.lock();
        let mut set = open.registration.lock_set();
        let Some(last) = set.remove_file(open.device) else {
            return;
        };
        let same = |session: &Session| session.opened.is_of(&last);
        let index = state.sessions.iter().position(same);
        let Some(Ok(session)) = index.map(|index| state.sessions.remove(index)) else {
            return;
        };
        set.close(last, session.opened);
        open.group.drop_translation_if_closed(&state);
    }

    /// Returns the address space for devices that are opened while the group is in `iommu`.
    fn address_space(&self, iommu: &GroupIommu) -> Result<AddressSpace, Reason> {
        let noiommu = self.kind == GroupType::NoIommu;
        match iommu {
            GroupIommu::Container(container) => {
                let iommu = container.iommu().ok_or(Reason::NoAddressSpace)?;
                if noiommu && !Capability::SysRawio.held() {
                    return Err(Reason::NoRight);
                }
                Ok(AddressSpace::Container(iommu))
            }
            GroupIommu::Iommufd(context) if noiommu => {
                if !Capability::SysRawio.held() {
                    return Err(Reason::NoRight);
                }
                if context.compat_ioas().is_ok() {
                    return Err(Reason::Translated);
                }
                Ok(AddressSpace::Untranslated(context.clone()))
            }
            GroupIommu::Iommufd(context) => Ok(AddressSpace::Iommufd(context.clone())),
        }
    }

    /// Lets drivers use `space` if it is of a container.
    fn set_translation(&self, space: &AddressSpace, group: ARef<IommuGroup>) {
        let AddressSpace::Container(iommu) = space else {
            return;
        };
        let translation = Translation {
            iommu: iommu.clone(),
            group,
        };
        let former = self.translation.lock().replace(translation);
        drop(former);
    }

    /// Drops the address space for drivers if no device is open in it.
    fn drop_translation_if_closed(&self, state: &GroupState) {
        if state.session_in_container().is_none() {
            let last = self.translation.lock().take();
            drop(last);
        }
    }
}
