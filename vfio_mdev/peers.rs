// SPDX-License-Identifier: GPL-2.0

//! Peer-to-peer groups: devices that share resources and therefore have a single user.
//!
//! Devices with the same UUID in `peer_to_peer_resource_uuid` are in one software group of
//! `iommu_group.ko`, which `vfio.ko` offers to userspace as a whole. This module maps UUIDs to
//! groups and tracks the members of each group. It changes a group together with the software
//! group, while no device involved can be opened.

mod directory;

use iommu_group::software;
use kernel::{
    device::Device as BusDevice,
    new_mutex,
    new_spinlock,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        Mutex,
        SpinLock, //
    }, //
};
use kernel_ext::tree::{
    Node,
    Tree, //
};

use crate::{
    abi::{
        globals::PEERS,
        members::Erased, //
    },
    uuid::Uuid, //
};
use directory::Directory;

/// All groups, and all devices that can be in a group.
pub(crate) struct Peers {
    groups: Directory<Uuid, Arc<Group>>,
    /// By the UUID of the device.
    devices: Tree<Uuid, Arc<Peer>>,
}

impl Peers {
    pub(crate) const fn new() -> Self {
        Self {
            groups: Directory::new(),
            devices: Tree::new(),
        }
    }
}

/// Identifies the driver of a peer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct DriverKey(pub(crate) usize);

/// Asks the parent of a peer whether the peer may join the members of a group.
type Admit = fn(&Peer, &[Arc<Peer>]) -> Result;

/// A device that can be in a group with others.
#[pin_data]
pub(crate) struct Peer {
    name: Uuid,
    dev: ARef<BusDevice>,
    driver: DriverKey,
    instance: Erased,
    admit: Admit,
    /// Changed with [`PEERS`](static@PEERS) held, while the device cannot be opened.
    #[pin]
    group: SpinLock<Arc<Group>>,
}

/// Devices with the same UUID in `peer_to_peer_resource_uuid`.
#[pin_data]
struct Group {
    uuid: Uuid,
    /// Members are added with [`PEERS`](static@PEERS) held, and removed at any time.
    ///
    /// A driver holds it while it accesses the memory of a process, which the process can delay.
    /// Waiting for it with `PEERS` held is allowed only while no member can be open.
    #[pin]
    members: Mutex<KVec<Arc<Peer>>>,
    /// The number of open members. Held while the driver is notified of the first open and of the
    /// last close.
    #[pin]
    open: Mutex<usize>,
}

impl Group {
    fn new(uuid: Uuid) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                uuid,
                members <- new_mutex!(KVec::new(), "vfio_mdev::Group::members"),
                open <- new_mutex!(0, "vfio_mdev::Group::open"),
            }),
            GFP_KERNEL,
        )
    }

    /// Adds a member. [`admitted`] has made room for it, with [`PEERS`](static@PEERS) held since.
    fn add(&self, peer: Arc<Peer>) {
        let added = self.members.lock().push_within_capacity(peer);
        debug_assert!(added.is_ok());
    }

    /// Removes a member.
    fn remove(&self, peer: &Arc<Peer>) {
        let mut members = self.members.lock();
        members.retain(|member| !Arc::ptr_eq(member, peer));
    }
}

impl Peer {
    /// Creates a peer with a group of its own and a random UUID. Returns `None` if the VFIO core in
    /// use cannot move devices between groups.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(
        name: Uuid,
        dev: &BusDevice,
        driver: DriverKey,
        instance: Erased,
        admit: Admit,
    ) -> Result<Option<Arc<Self>>> {
        if !software::can_regroup() {
            return Ok(None);
        }
        let group = Group::new(Uuid::random())?;
        let peer = Arc::pin_init(
            pin_init!(Self {
                name,
                dev: dev.into(),
                driver,
                instance,
                admit,
                group <- new_spinlock!(group, "vfio_mdev::Peer::group"),
            }),
            GFP_KERNEL,
        )?;
        Ok(Some(peer))
    }

    fn group(&self) -> Arc<Group> {
        self.group.lock().clone()
    }

    /// Returns the value of `peer_to_peer_resource_uuid`.
    pub(crate) fn uuid(&self) -> Uuid {
        self.group().uuid
    }

    pub(crate) fn instance(&self) -> Erased {
        self.instance
    }

    /// Calls `f` with the members of the group. No member joins or leaves during the call.
    pub(crate) fn with_members<R>(&self, f: impl FnOnce(&[Arc<Peer>]) -> R) -> R {
        loop {
            let group = self.group();
            let members = group.members.lock();
            // The device may have moved to another group meanwhile. From now on the old group
            // keeps it until the lock is released.
            if Arc::ptr_eq(&group, &self.group()) {
                return f(&members);
            }
        }
    }

    /// Counts the device as open. Calls `first` if no other member is open.
    ///
    /// # Errors
    ///
    /// The errors of `first`. Then the device is not counted.
    pub(crate) fn opened(&self, first: impl FnOnce(&[Arc<Peer>]) -> Result) -> Result {
        let group = self.group();
        let mut open = group.open.lock();
        if *open == 0 {
            first(&group.members.lock())?;
        }
        *open += 1;
        Ok(())
    }

    /// Undoes [`Peer::opened`]. Calls `last` if no other member is open.
    pub(crate) fn closed(&self, last: impl FnOnce(&[Arc<Peer>])) {
        let group = self.group();
        let mut open = group.open.lock();
        *open -= 1;
        if *open == 0 {
            last(&group.members.lock());
        }
    }
}

/// Registers a device with VFIO by calling `register`, which puts it into a software group of its
/// own, and then makes the peer visible to [`find`].
///
/// The device becomes a member of its own group before the registration, because it can be opened
/// as soon as it is registered.
///
/// # Errors
///
/// `ENOMEM`, and the errors of `register`.
pub(crate) fn enter(peer: &Arc<Peer>, register: impl FnOnce() -> Result) -> Result {
    let group = peer.group();
    let by_name = Node::new(peer.name, peer.clone())?;
    let mut peers = PEERS.lock();
    let target = peers.groups.target(group.uuid, || Ok(group.clone()))?;
    group.members.lock().push(peer.clone(), GFP_KERNEL)?;
    register().inspect_err(|_| group.remove(peer))?;
    peers.groups.join(target);
    peers.devices.insert(by_name);
    Ok(())
}

/// Removes a device from its group. The device is no longer registered with VFIO.
pub(crate) fn leave(peer: &Arc<Peer>) {
    PEERS.lock().devices.remove(&peer.name);
    // Other members may be open, so this waits without `PEERS`. The device cannot change groups any
    // more, and its group stays in the directory.
    let group = peer.group();
    group.remove(peer);
    PEERS.lock().groups.leave(&group.uuid);
}

/// Returns the device with a UUID, if it can be in a group with others.
pub(crate) fn find(name: Uuid) -> Option<Arc<Peer>> {
    PEERS.lock().devices.get(&name).cloned()
}

/// Moves a device to the group with a UUID. The group is created if no device has the UUID.
///
/// # Errors
///
/// Nothing changes on error. `EBUSY` if a device of the old or the new group is open, if the file
/// of such a group is open, or if a driver is using the members of the new group; `EXDEV` if the new
/// group has devices of another driver; `ENODEV` if the device is being removed; `ENOMEM`; and the
/// errors of the device's parent.
pub(crate) fn assign(peer: &Arc<Peer>, uuid: Uuid) -> Result {
    let mut peers = PEERS.lock();
    let from = peer.group();
    if from.uuid == uuid {
        return Ok(());
    }
    let target = peers.groups.target(uuid, || Group::new(uuid))?;
    let companions = admitted(peer, target.group())?;
    let mut target = Some(target);
    software::regroup(&peer.dev, &companions, &mut || {
        if let Some(target) = target.take() {
            peers.groups.leave(&from.uuid);
            let to = peers.groups.join(target);
            // `Peer::with_members` relies on this order: the group of a device always has it as a
            // member.
            to.add(peer.clone());
            let former = core::mem::replace(&mut *peer.group.lock(), to);
            former.remove(peer);
        }
    })
}

/// Checks that driver and parent allow `peer` to join `group`, and makes room for it. Returns the
/// devices of `group`.
///
/// # Errors
///
/// `EBUSY` if a driver is using the members; `EXDEV` if they belong to another driver; `ENOMEM`; the
/// errors of the parent.
fn admitted(peer: &Peer, group: &Group) -> Result<KVec<ARef<BusDevice>>> {
    let mut members = group.members.try_lock().ok_or(EBUSY)?;
    members.reserve(1, GFP_KERNEL)?;
    let mut devices = KVec::with_capacity(members.len(), GFP_KERNEL)?;
    if members.is_empty() {
        return Ok(devices);
    }
    if members.iter().any(|member| member.driver != peer.driver) {
        return Err(EXDEV);
    }
    (peer.admit)(peer, &members)?;
    for member in members.iter() {
        devices.push(member.dev.clone(), GFP_KERNEL)?;
    }
    Ok(devices)
}
