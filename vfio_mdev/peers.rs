// SPDX-License-Identifier: GPL-2.0

//! Peer-to-peer groups: devices that share resources, and so have one user.
//!
//! Devices with one UUID in `peer_to_peer_resource_uuid` are in one software group of
//! `iommu_group.ko`, which `vfio.ko` offers to userspace as a whole. Here is which UUID means which
//! group, and who is in it; a change is made together with that of the software group, while nobody
//! can open any of the devices concerned.

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

/// All groups, and all devices that can be in one.
pub(crate) struct Peers {
    groups: Directory<Uuid, Arc<Group>>,
    /// By the name of the device.
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

/// Whose device a peer is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct DriverKey(pub(crate) usize);

/// Asks a peer's parent whether it may join the members of a group.
type Admit = fn(&Peer, &[Arc<Peer>]) -> Result;

/// A device that can be in a group with others.
#[pin_data]
pub(crate) struct Peer {
    name: Uuid,
    dev: ARef<BusDevice>,
    driver: DriverKey,
    instance: Erased,
    admit: Admit,
    /// Changed with [`PEERS`](static@PEERS) held, while the device can't be opened.
    #[pin]
    group: SpinLock<Arc<Group>>,
}

/// Devices with one UUID.
#[pin_data]
struct Group {
    uuid: Uuid,
    /// Changed with [`PEERS`](static@PEERS) held.
    #[pin]
    members: Mutex<KVec<Arc<Peer>>>,
    /// How many members are open. Held while the driver is told of the first and of the last one.
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

    /// The members with one more, which isn't in the group yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    fn with(&self, peer: &Arc<Peer>) -> Result<KVec<Arc<Peer>>> {
        let members = self.members.lock();
        let mut more = KVec::with_capacity(members.len() + 1, GFP_KERNEL)?;
        for member in members.iter() {
            more.push(member.clone(), GFP_KERNEL)?;
        }
        more.push(peer.clone(), GFP_KERNEL)?;
        Ok(more)
    }

    /// Gives the group the members that [`Group::with`] returned; nobody has come or gone since.
    fn set(&self, members: KVec<Arc<Peer>>) {
        let former = core::mem::replace(&mut *self.members.lock(), members);
        drop(former);
    }

    /// Takes a member out.
    fn remove(&self, peer: &Arc<Peer>) {
        let mut members = self.members.lock();
        members.retain(|member| !Arc::ptr_eq(member, peer));
    }
}

impl Peer {
    /// A device that has a group of its own, of a random UUID. `None` if groups can't be changed: the
    /// VFIO core in use doesn't know how.
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

    /// What `peer_to_peer_resource_uuid` says.
    pub(crate) fn uuid(&self) -> Uuid {
        self.group().uuid
    }

    pub(crate) fn instance(&self) -> Erased {
        self.instance
    }

    /// Calls `f` with the members of the group, none of which comes or goes meanwhile.
    pub(crate) fn with_members<R>(&self, f: impl FnOnce(&[Arc<Peer>]) -> R) -> R {
        f(&self.group().members.lock())
    }

    /// Counts the device as open; `first` is called if no other member is.
    ///
    /// # Errors
    ///
    /// What `first` says; the device isn't counted then.
    pub(crate) fn opened(&self, first: impl FnOnce(&[Arc<Peer>]) -> Result) -> Result {
        let group = self.group();
        let mut open = group.open.lock();
        if *open == 0 {
            first(&group.members.lock())?;
        }
        *open += 1;
        Ok(())
    }

    /// Undoes [`Peer::opened`]; `last` is called if no other member is open.
    pub(crate) fn closed(&self, last: impl FnOnce(&[Arc<Peer>])) {
        let group = self.group();
        let mut open = group.open.lock();
        *open -= 1;
        if *open == 0 {
            last(&group.members.lock());
        }
    }
}

/// Registers a device with VFIO by calling `register`, which puts it into a software group of its own; then
/// others find it.
///
/// The device is a member of its own group before it is registered: somebody may open it at once.
///
/// # Errors
///
/// `ENOMEM`, and what `register` says.
pub(crate) fn enter(peer: &Arc<Peer>, register: impl FnOnce() -> Result) -> Result {
    let group = peer.group();
    let by_name = Node::new(peer.name, peer.clone())?;
    let mut peers = PEERS.lock();
    let target = peers.groups.target(group.uuid, || Ok(group.clone()))?;
    group.set(group.with(peer)?);
    register().inspect_err(|_| group.remove(peer))?;
    peers.groups.join(target);
    peers.devices.insert(by_name);
    Ok(())
}

/// Takes a device, which isn't registered with VFIO any more, out of its group.
pub(crate) fn leave(peer: &Arc<Peer>) {
    let mut peers = PEERS.lock();
    peers.devices.remove(&peer.name);
    let group = peer.group();
    group.remove(peer);
    peers.groups.leave(&group.uuid);
}

/// The device with a name, if it can be in a group with others.
pub(crate) fn find(name: Uuid) -> Option<Arc<Peer>> {
    PEERS.lock().devices.get(&name).cloned()
}

/// Puts a device into the group with a UUID: that of the devices which have it, or one of its own.
///
/// # Errors
///
/// What fails changes nothing. `EBUSY` if a device of the former or the new group is open or its group's
/// file is, `EXDEV` if the new group has devices of another driver, `ENODEV` if the device is being
/// removed, `ENOMEM`, and what its parent says.
pub(crate) fn assign(peer: &Arc<Peer>, uuid: Uuid) -> Result {
    let mut peers = PEERS.lock();
    let from = peer.group();
    if from.uuid == uuid {
        return Ok(());
    }
    let target = peers.groups.target(uuid, || Group::new(uuid))?;
    let members = target.group().with(peer)?;
    let companions = admitted(peer, target.group())?;
    let mut change = Some((target, members));
    software::regroup(&peer.dev, &companions, &mut || {
        if let Some((target, members)) = change.take() {
            from.remove(peer);
            peers.groups.leave(&from.uuid);
            let to = peers.groups.join(target);
            to.set(members);
            let former = core::mem::replace(&mut *peer.group.lock(), to);
            drop(former);
        }
    })
}

/// The devices of `group`, once driver and parent have agreed that `peer` joins them.
fn admitted(peer: &Peer, group: &Group) -> Result<KVec<ARef<BusDevice>>> {
    let members = group.members.lock();
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
