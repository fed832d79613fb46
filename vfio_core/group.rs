// SPDX-License-Identifier: GPL-2.0

//! Groups: the devices that the IOMMU cannot isolate from each other, and therefore the unit of
//! ownership.
//!
//! A group appears as `/dev/vfio/N` when its first device is registered, and disappears with the
//! last one. A group has one user at a time: its file can be opened only once, and open devices
//! hold a reference to that file. Instead, its devices can be used through files of their own, by
//! the users of one iommufd.

#[allow(unsafe_code)]
mod abi;
mod debugfs;
mod device_fd;
mod file;
mod get_devices;
mod holder;
mod merge;
mod reason;
pub(crate) mod registry;

use kernel::{
    new_mutex,
    new_spinlock,
    prelude::*,
    str::CString,
    sync::{
        aref::ARef,
        Arc,
        Mutex,
        SpinLock, //
    }, //
};
use kernel_ext::{
    bindings,
    chardev::{
        Class,
        DevFolder, //
    },
    iommu::Group as IommuGroup,
    iommu_driver::GroupType,
    iommufd::Context,
    task::Capability,
    tree::{
        Slot,
        Tree, //
    }, //
};

use crate::{
    container::Container,
    device::{
        registration::Registered,
        set::AddressSpace,
        Device, //
    },
    iommu_driver::Iommu,
    kvm::Kvm, //
};

pub(crate) use abi::{
    init_locks,
    GroupsGuard, //
};
pub(crate) use device_fd::OpenDevice;
pub(crate) use file::file_group;
pub(crate) use holder::{
    DeviceUser,
    IdleGroup, //
};

use device_fd::Session;
use holder::{
    Holder,
    Users, //
};
use reason::Reason;

/// `/sys/class/vfio`
static CLASS: Class = Class::new::<Nodes>(c"vfio");

struct Nodes;

impl DevFolder for Nodes {
    const FOLDER: &'static CStr = c"vfio";
}

/// A group of registered devices.
#[pin_data]
pub(crate) struct Group {
    /// The id of the IOMMU group, which is part of the device node's name.
    id: i32,
    kind: GroupType,
    /// How the group is in use. Held while the group joins or leaves a container and while its
    /// devices are opened or closed, which can take long.
    #[pin]
    state: Mutex<GroupState>,
    /// The user of the whole group, or those of its devices that are used through files of their
    /// own. This is a lock separate from `state`, so that checking for a user does not wait for
    /// that user's requests.
    #[pin]
    users: Mutex<Users>,
    /// The devices that can be opened, indexed by the number in their names.
    #[pin]
    devices: Mutex<Tree<u32, ARef<Device>>>,
    /// The KVM instance associated with the group, for drivers that need it.
    #[pin]
    kvm: SpinLock<Option<Kvm>>,
    /// The address space of the container that the open devices use. Set from the first open to the
    /// last close. This is a lock separate from `state` because drivers pin pages while their
    /// device is being opened.
    #[pin]
    translation: SpinLock<Option<Translation>>,
}

/// How the group is in use.
struct GroupState {
    /// `None` after the last device is unregistered.
    iommu_group: Option<ARef<IommuGroup>>,
    iommu: Option<GroupIommu>,
    /// The open devices, with one entry per device.
    sessions: KVec<Session>,
}

/// What translates for a group: what `VFIO_GROUP_SET_CONTAINER` was given.
#[derive(Clone)]
pub(super) enum GroupIommu {
    Container(Arc<Container>),
    /// An iommufd, with the address space that it has for VFIO containers.
    Iommufd(Context),
}

/// The address space of a container, as drivers of the open devices use it.
#[derive(Clone)]
pub(crate) struct Translation {
    pub(crate) iommu: Arc<Iommu>,
    pub(crate) group: ARef<IommuGroup>,
}

impl Group {
    fn new(iommu_group: ARef<IommuGroup>, kind: GroupType) -> Result<Arc<Self>> {
        let id = iommu_group.id();
        let state = GroupState {
            iommu_group: Some(iommu_group),
            iommu: None,
            sessions: KVec::new(),
        };
        Arc::pin_init(
            pin_init!(Self {
                id,
                kind,
                state <- new_mutex!(state, "vfio_group::state"),
                users <- new_mutex!(Users::new(), "vfio_group::users"),
                devices <- new_mutex!(Tree::new(), "vfio_group::devices"),
                kvm <- new_spinlock!(None, "vfio_group::kvm"),
                translation <- new_spinlock!(None, "vfio_group::translation"),
            }),
            GFP_KERNEL,
        )
    }

    /// Returns the name of the group's device node, and of its file in debugfs.
    fn name(&self) -> Result<CString> {
        let prefix = match self.kind {
            GroupType::NoIommu => "noiommu-",
            _ => "",
        };
        CString::try_from_fmt(fmt!("{}{}", prefix, self.id))
    }

    /// Returns the type of the group: `enum vfio_group_type`.
    pub(crate) fn kind(&self) -> GroupType {
        self.kind
    }

    /// Allows `device` to be opened. `slot` is the memory for that.
    pub(crate) fn add_device(&self, device: &Registered<'_>, slot: Slot<u32, ARef<Device>>) {
        let node = slot.fill(device.index(), (&**device).into());
        self.devices.lock().insert(node);
    }

    /// Prevents further opens of `device`.
    pub(crate) fn remove_device(&self, device: &Device) {
        let listed = self.devices.lock().remove(&device.index());
        drop(listed);
    }

    /// Returns the device of `parent` if it can be opened.
    fn device_of(&self, parent: &kernel::device::Device) -> Option<ARef<Device>> {
        let devices = self.devices.lock();
        let mut devices = devices.iter().map(|(_, device)| device);
        devices
            .find(|device| core::ptr::eq(device.parent(), parent))
            .cloned()
    }

    /// Returns whether the IOMMU can enforce cache coherency for all devices of the group, so that
    /// none can bypass it.
    pub(crate) fn enforces_coherency(&self) -> bool {
        let capable = |(_, device): (&u32, &ARef<Device>)| {
            device.iommu_capable(bindings::iommu_cap_IOMMU_CAP_ENFORCE_CACHE_COHERENCY)
        };
        self.devices.lock().iter().all(capable)
    }

    /// Associates the group with a KVM instance, or removes the association.
    pub(crate) fn set_kvm(&self, kvm: Option<Kvm>) {
        *self.kvm.lock() = kvm;
    }

    /// Returns the address space that the group's open devices use.
    pub(crate) fn translation(&self) -> Option<Translation> {
        self.translation.lock().clone()
    }

    /// Logs which task has `device` open, if that is known without waiting for `state`: a request can
    /// hold that lock for long, and the caller must not wait only to log a message.
    pub(crate) fn warn_holder(&self, device: &Device) {
        let by_file = self.users.lock().holder_of(device).map(Holder::label);
        let by_group = || {
            let state = self.state.try_lock()?;
            Some(state.holder_of(device)?.label())
        };
        match by_file.or_else(by_group) {
            Some(label) => dev_warn!(
                device.parent(),
                "cannot be unregistered while it is open by {}; close it in that process\n",
                label
            ),
            None => dev_warn!(
                device.parent(),
                "cannot be unregistered while one of its files is open; close them\n"
            ),
        }
    }

    /// Adds the group to `container`.
    ///
    /// # Errors
    ///
    /// Returns `ENODEV` after the last device has left; `EPERM` if the group has no IOMMU and the
    /// caller lacks `CAP_SYS_RAWIO`; or an error of [`Container::attach`].
    fn join_container(&self, state: &mut GroupState, container: &Arc<Container>) -> Result {
        let group = state.iommu_group.clone().ok_or(ENODEV)?;
        if self.kind == GroupType::NoIommu && !Capability::SysRawio.held() {
            return Err(self.fail(state, "VFIO_GROUP_SET_CONTAINER", Reason::NoRight));
        }
        container.attach(group, self.kind)?;
        state.iommu = Some(GroupIommu::Container(container.clone()));
        Ok(())
    }

    /// Sets `context` as what translates for the group, which is done for each device when it is
    /// opened. Without an IOMMU nothing is translated.
    ///
    /// # Errors
    ///
    /// Returns `EINVAL` if `context` is used for groups without an IOMMU and this one has one, or
    /// the other way round; `ENOMEM`.
    fn join_iommufd(&self, state: &mut GroupState, context: Context) -> Result {
        match self.kind {
            GroupType::NoIommu => context.set_no_iommu(),
            _ => context.create_compat_ioas(),
        }?;
        state.iommu = Some(GroupIommu::Iommufd(context));
        Ok(())
    }
}

impl GroupState {
    /// Returns whether the group can be assigned to userspace: it is in a container or an iommufd,
    /// or no driver or process owns its DMA.
    ///
    /// # Errors
    ///
    /// Returns `ENODEV` after the last device has left.
    fn is_viable(&self) -> Result<bool> {
        let group = self.iommu_group.as_ref().ok_or(ENODEV)?;
        Ok(self.iommu.is_some() || !group.dma_owner_claimed())
    }

    /// Returns the container that the group is in.
    fn container(&self) -> Option<&Arc<Container>> {
        match &self.iommu {
            Some(GroupIommu::Container(container)) => Some(container),
            _ => None,
        }
    }

    /// Returns the task that first opened `device` through the group, if the device is open.
    fn holder_of(&self, device: &Device) -> Option<&Holder> {
        Some(&self.session_of(device)?.holder)
    }

    fn session_of(&self, device: &Device) -> Option<&Session> {
        let same = |session: &&Session| session.opened.is_of(device);
        self.sessions.iter().find(same)
    }

    /// Returns a device that is open in the group's container.
    fn session_in_container(&self) -> Option<&Session> {
        let mut sessions = self.sessions.iter();
        sessions.find(|session| matches!(session.opened.space(), AddressSpace::Container(_)))
    }

    /// Removes the group from its container or iommufd, if it is in one.
    fn leave(&mut self) {
        self.leave_container(|_| true);
        self.iommu = None;
    }

    /// Removes the group from its container, if it is in one and `condition` returns true for the
    /// number of groups in the container. The number cannot change between the check and the
    /// removal. Returns whether the group has left.
    fn leave_container(&mut self, condition: impl FnOnce(usize) -> bool) -> bool {
        let (Some(container), Some(group)) = (self.container(), &self.iommu_group) else {
            return false;
        };
        let left = container.detach(group, condition);
        if left {
            self.iommu = None;
        }
        left
    }
}
