// SPDX-License-Identifier: GPL-2.0

//! Peer-to-peer groups: devices that share resources and therefore have a single user.
//!
//! Devices with the same UUID in `peer_to_peer_resource_uuid` that can share resources are in one
//! [`PeerGroup`], and in one software group of `vfio.ko`, which offers the software group to
//! userspace as a whole. A UUID has several groups if its devices have different drivers, or if a
//! driver refuses to let some of them share. [`Peer::group`] determines the group of a device. A
//! write to the attribute ([`Peers::set_uuid`]) makes `vfio.ko` move the device to the other
//! software group, and changes [`Peer::group`] in the course of it, while no device of the two
//! groups can be opened.

#[allow(unsafe_code)]
mod abi;
#[allow(unsafe_code)]
#[path = "peers/attributes/abi.rs"]
mod attributes;
#[allow(unsafe_code)]
#[path = "peers/c_driver/abi.rs"]
pub(crate) mod c_driver;
mod registry;

use core::sync::atomic::{
    AtomicBool,
    Ordering, //
};

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
use kernel_ext::{
    iommu::Group as IommuGroup,
    mm::may_warn, //
};

use crate::uuid::Uuid;
use abi::{
    Erased,
    PEERS,
    WITH_ATTRIBUTES, //
};
use registry::Peers;

pub(crate) use abi::{
    init_lock,
    MoveDevice,
    PeerOf, //
};

pub use abi::Members;

/// Identifies the driver of a peer, by the address of its structure. No other driver has the address
/// as long as [`Peers`] has one of the driver's devices, which keeps the driver registered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct DriverKey(pub(crate) usize);

/// Identifies a device of the bus, by the address of its structure.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct DeviceKey(usize);

/// Asks the driver of a peer whether the peer may join the devices of a group, which have the same
/// driver. `EXDEV` means that it can't share with them, and needs another group. Called with
/// [`PEERS`](static@PEERS) locked.
type Admit = fn(&Peer, &[Arc<Peer>]) -> Result;

/// A device that can be in a group with others.
///
/// # Invariants
///
/// The group has the driver of the peer.
#[pin_data]
pub(crate) struct Peer {
    dev: ARef<BusDevice>,
    driver: DriverKey,
    instance: Erased,
    admit: Admit,
    /// `None` if the `vfio.ko` in use can't move devices. Then the device stays alone.
    move_device: Option<Arc<MoveDevice>>,
    /// Changed with [`PEERS`](static@PEERS) locked, while the device cannot be opened.
    #[pin]
    group: SpinLock<Arc<PeerGroup>>,
    /// Whether the device is counted as open ([`Peer::opened`]). Changed with
    /// [`PeerGroup::members`] locked, so a thread that holds this lock keeps the device open.
    open: AtomicBool,
}

/// Devices of one driver with the same UUID in `peer_to_peer_resource_uuid`. It exists as long as it
/// has members.
///
/// # Invariants
///
/// All members have the driver of the group, which does not change.
#[pin_data]
struct PeerGroup {
    uuid: Uuid,
    driver: DriverKey,
    /// The devices whose [`Peer::group`] is this group, in the order in which they joined. Locked
    /// while a member is opened or closed, and while the driver is notified of the first open and
    /// of the last close.
    ///
    /// A driver holds the lock while it accesses the memory of a process, which the process can
    /// delay. Waiting for it with [`PEERS`](static@PEERS) locked is allowed only while no member
    /// can be open.
    #[pin]
    members: Mutex<KVec<Arc<Peer>>>,
    /// The software group of the members, read when the last one joined: that device was registered
    /// with VFIO, and was not unregistered or moved meanwhile. It is remembered because a member
    /// leaves it when it is unregistered, which nothing here waits for. It may therefore be without
    /// devices.
    #[pin]
    software_group: SpinLock<Option<ARef<IommuGroup>>>,
}

impl PeerGroup {
    fn new(uuid: Uuid, driver: DriverKey) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                uuid,
                driver,
                members <- new_mutex!(KVec::new(), "vfio_mdev::PeerGroup::members"),
                software_group <- new_spinlock!(None, "vfio_mdev::PeerGroup::software_group"),
            }),
            GFP_KERNEL,
        )
    }

    /// Makes room for another member.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the driver is using the members; `ENOMEM`.
    fn make_room(&self) -> Result {
        let mut members = self.members.try_lock().ok_or(EBUSY)?;
        Ok(members.reserve(1, GFP_KERNEL)?)
    }

    /// Remembers the software group of `peer`, which was just registered with VFIO as the first
    /// member.
    fn note_software_group_of(&self, peer: &Peer) {
        let joined = IommuGroup::of_software(&peer.dev);
        *self.software_group.lock() = joined;
    }

    /// Removes a member.
    fn remove(&self, peer: &Arc<Peer>) {
        let mut members = self.members.lock();
        members.retain(|member| !Arc::ptr_eq(member, peer));
    }

    /// Forgets the software group if it is `now`, the one in which a former member stays: the other
    /// members, if any, are being unregistered and have left it.
    fn forget_software_group(&self, now: Option<&IommuGroup>) {
        let mut software_group = self.software_group.lock();
        let stale = (software_group.as_deref() == now).then(|| software_group.take());
        drop(software_group);
        drop(stale);
    }
}

impl Peer {
    /// Creates a peer with a group of its own and a random UUID.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    fn new(
        dev: &BusDevice,
        driver: DriverKey,
        instance: Erased,
        admit: Admit,
        move_device: Option<Arc<MoveDevice>>,
    ) -> Result<Arc<Self>> {
        let group = PeerGroup::new(Uuid::random(), driver)?;
        // INVARIANT: The group was just created with the same driver.
        Arc::pin_init(
            pin_init!(Self {
                dev: dev.into(),
                driver,
                instance,
                admit,
                move_device,
                group <- new_spinlock!(group, "vfio_mdev::Peer::group"),
                open: AtomicBool::new(false),
            }),
            GFP_KERNEL,
        )
    }

    fn key(&self) -> DeviceKey {
        DeviceKey(core::ptr::from_ref(&*self.dev) as usize)
    }

    fn group(&self) -> Arc<PeerGroup> {
        self.group.lock().clone()
    }

    /// Returns the value of `peer_to_peer_resource_uuid`.
    fn uuid(&self) -> Uuid {
        self.group().uuid
    }

    /// Changes the group to one of the same driver. The device is in the software group of `to`.
    /// [`PeerGroup::make_room`] has made room, and [`PEERS`](static@PEERS) is locked since.
    fn change_group(self: &Arc<Self>, to: &Arc<PeerGroup>) {
        let joined = IommuGroup::of_software(&self.dev);
        // A spinlock is held only for the exchange, and what is exchanged is dropped after that.
        let former = core::mem::replace(&mut *to.software_group.lock(), joined.clone());
        drop(former);
        // `with_members` relies on this order: the group of a device has it as a member until `leave`.
        // INVARIANT: `to` has the driver of the peer.
        let added = to.members.lock().push_within_capacity(self.clone());
        debug_assert!(added.is_ok());
        let former = core::mem::replace(&mut *self.group.lock(), to.clone());
        former.remove(self);
        former.forget_software_group(joined.as_deref());
    }

    /// Calls `f` with the members of the group. No member joins or leaves, is opened or closed during
    /// the call. There are none if the device itself has left the group ([`leave`]), though others
    /// may still be in it.
    fn with_members<R>(&self, f: impl FnOnce(&[Arc<Peer>]) -> R) -> R {
        loop {
            let group = self.group();
            let members = group.members.lock();
            // The device may have moved to another group meanwhile. From now on the old group
            // keeps it until the lock is released.
            if Arc::ptr_eq(&group, &self.group()) {
                let is_member = members.iter().any(|member| core::ptr::eq(&**member, self));
                return f(if is_member { &members } else { &[] });
            }
        }
    }

    /// Whether the device is counted as open. With [`PeerGroup::members`] locked, it stays so.
    fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Counts the device as open. Calls `first` if no other member is open. Waits for threads that
    /// use the members.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the device is counted already; the errors of `first`. Then nothing changes.
    fn opened(&self, first: impl FnOnce(&[Arc<Peer>]) -> Result) -> Result {
        self.with_members(|members| {
            if self.is_open() {
                self.warn_unbalanced("opened twice");
                return Err(EINVAL);
            }
            if !members.iter().any(|member| member.is_open()) {
                first(members)?;
            }
            self.open.store(true, Ordering::Relaxed);
            Ok(())
        })
    }

    /// Undoes [`Peer::opened`]. Calls `last` if no other member is open. Waits for threads that use
    /// the members, and may access the memory of the process through this one. Has no effect if the
    /// device is not counted.
    fn closed(&self, last: impl FnOnce(&[Arc<Peer>])) {
        self.with_members(|members| {
            if !self.is_open() {
                return self.warn_unbalanced("closed, but not open");
            }
            self.open.store(false, Ordering::Relaxed);
            if !members.iter().any(|member| member.is_open()) {
                last(members);
            }
        });
    }

    /// Logs that a driver's call was ignored.
    fn warn_unbalanced(&self, problem: &str) {
        if may_warn() {
            dev_warn!(
                self.dev,
                "a peer was {}: a defect of the driver, which is ignored\n",
                problem
            );
        }
    }
}

/// Registers a device with VFIO by calling `register`, which puts it into a software group of its
/// own, and creates its attributes. `unregister` undoes `register`. The device is not unregistered
/// before this returns.
///
/// The device becomes a member of its own group before the registration, because it can be opened
/// as soon as it is registered. No other device can join the group before the registration.
///
/// # Errors
///
/// `ENOMEM`, and the errors of `register` and of sysfs.
pub(crate) fn register(
    peer: &Arc<Peer>,
    register: impl FnOnce() -> Result,
    unregister: impl FnOnce(),
) -> Result {
    PEERS.lock().add(peer, register)?;
    attributes::create(peer).inspect_err(|_| {
        unregister();
        leave(peer);
    })
}

/// Undoes [`register`]: removes the attributes of a device, unregisters it from VFIO by calling
/// `unregister`, and removes it from its group.
pub(crate) fn unregister(peer: &Arc<Peer>, unregister: impl FnOnce()) {
    // Waits for a write to the attribute, so that the device no longer changes groups.
    attributes::remove(peer);
    unregister();
    leave(peer);
}

/// Removes a device from its group. The device is no longer registered with VFIO, and has no
/// attributes.
fn leave(peer: &Arc<Peer>) {
    PEERS.lock().remove(peer);
    // Other members may be open, so this waits without `PEERS`.
    peer.group().remove(peer);
}

#[cfg(CONFIG_KUNIT)]
mod tests;
