// SPDX-License-Identifier: GPL-2.0

//! Peer-to-peer groups: devices that share resources and therefore have a single user.
//!
//! Devices with the same UUID in `peer_to_peer_resource_uuid` are in one [`PeerGroup`], and in one
//! software group of `vfio.ko`, which offers the software group to userspace as a whole.
//! [`Peer::group`] determines the group of a device. A write to the attribute ([`set_uuid`]) makes
//! `vfio.ko` move the device to the other software group, and changes [`Peer::group`] in the course
//! of it, while no device of the two groups can be opened.

#[allow(unsafe_code)]
mod abi;

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
    vec_slot::VecSlot, //
};

use crate::uuid::Uuid;
use abi::{
    Erased,
    PEERS, //
};

pub(crate) use abi::{
    attribute_groups,
    init_lock,
    MoveDevice,
    PeerOf, //
};

pub use abi::Members;

/// Identifies the driver of a peer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct DriverKey(pub(crate) usize);

/// Asks the parent of a peer whether the peer may join the members of a group.
type Admit = fn(&Peer, &[Arc<Peer>]) -> Result;

/// A device that can be in a group with others.
#[pin_data]
pub(crate) struct Peer {
    dev: ARef<BusDevice>,
    driver: DriverKey,
    instance: Erased,
    admit: Admit,
    /// Changed with [`PEERS`](static@PEERS) locked, while the device cannot be opened.
    #[pin]
    group: SpinLock<Arc<PeerGroup>>,
}

/// Devices with the same UUID in `peer_to_peer_resource_uuid`. It exists as long as it has members.
#[pin_data]
struct PeerGroup {
    uuid: Uuid,
    /// The devices whose [`Peer::group`] is this group, in the order in which they joined.
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
    /// The number of open members. Held while the driver is notified of the first open and of the
    /// last close.
    #[pin]
    open: Mutex<usize>,
}

impl PeerGroup {
    fn new(uuid: Uuid) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                uuid,
                members <- new_mutex!(KVec::new(), "vfio_mdev::PeerGroup::members"),
                software_group <- new_spinlock!(None, "vfio_mdev::PeerGroup::software_group"),
                open <- new_mutex!(0, "vfio_mdev::PeerGroup::open"),
            }),
            GFP_KERNEL,
        )
    }

    /// Checks that driver and parent allow `peer` to join the group, and makes room for it. Returns
    /// the software group of the members, or `None` if there are none.
    ///
    /// # Errors
    ///
    /// `EBUSY` if a driver is using the members; `EXDEV` if they belong to another driver;
    /// `ENOMEM`; the errors of the parent.
    fn admit(&self, peer: &Peer) -> Result<Option<ARef<IommuGroup>>> {
        let mut members = self.members.try_lock().ok_or(EBUSY)?;
        members.reserve(1, GFP_KERNEL)?;
        if members.is_empty() {
            return Ok(None);
        }
        if members.iter().any(|member| member.driver != peer.driver) {
            return Err(EXDEV);
        }
        (peer.admit)(peer, &members)?;
        Ok(self.software_group.lock().clone())
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
    ) -> Result<Arc<Self>> {
        let group = PeerGroup::new(Uuid::random())?;
        Arc::pin_init(
            pin_init!(Self {
                dev: dev.into(),
                driver,
                instance,
                admit,
                group <- new_spinlock!(group, "vfio_mdev::Peer::group"),
            }),
            GFP_KERNEL,
        )
    }

    fn group(&self) -> Arc<PeerGroup> {
        self.group.lock().clone()
    }

    /// Returns the value of `peer_to_peer_resource_uuid`.
    fn uuid(&self) -> Uuid {
        self.group().uuid
    }

    /// Changes the group. The device is in the software group of `to`. [`PeerGroup::admit`] has
    /// made room, and [`PEERS`](static@PEERS) is locked since.
    fn change_group(self: &Arc<Self>, to: &Arc<PeerGroup>) {
        let joined = IommuGroup::of_software(&self.dev);
        // A spinlock is held only for the exchange, and what is exchanged is dropped after that.
        let former = core::mem::replace(&mut *to.software_group.lock(), joined.clone());
        drop(former);
        // `with_members` relies on this order: the group of a device always has it as a member.
        let added = to.members.lock().push_within_capacity(self.clone());
        debug_assert!(added.is_ok());
        let former = core::mem::replace(&mut *self.group.lock(), to.clone());
        former.remove(self);
        former.forget_software_group(joined.as_deref());
    }

    /// Calls `f` with the members of the group. No member joins or leaves during the call. There are
    /// none if the device itself has left the group ([`leave`]): a device of another driver may have
    /// joined it since.
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

    /// Counts the device as open. Calls `first` if no other member is open.
    ///
    /// # Errors
    ///
    /// The errors of `first`. Then the device is not counted.
    fn opened(&self, first: impl FnOnce(&[Arc<Peer>]) -> Result) -> Result {
        let group = self.group();
        let mut open = group.open.lock();
        if *open == 0 {
            first(&group.members.lock())?;
        }
        *open += 1;
        Ok(())
    }

    /// Undoes [`Peer::opened`]. Calls `last` if no other member is open.
    fn closed(&self, last: impl FnOnce(&[Arc<Peer>])) {
        let group = self.group();
        let mut open = group.open.lock();
        *open -= 1;
        if *open == 0 {
            last(&group.members.lock());
        }
    }
}

/// Registers a device with VFIO by calling `register`, which puts it into a software group of its
/// own. The device is not unregistered before this returns.
///
/// The device becomes a member of its own group before the registration, because it can be opened
/// as soon as it is registered. No other device can join the group before the registration.
///
/// # Errors
///
/// `ENOMEM`, and the errors of `register`.
pub(crate) fn enter(peer: &Arc<Peer>, register: impl FnOnce() -> Result) -> Result {
    let mut peers = PEERS.lock();
    let entered = add(&mut peers, peer, register);
    free_if_empty(&mut peers);
    entered
}

/// Frees the memory of the list of all peers if it is empty. A static is never dropped, so the module
/// must not leave memory in it.
fn free_if_empty(peers: &mut KVec<Arc<Peer>>) {
    if peers.is_empty() {
        *peers = KVec::new();
    }
}

/// Does what [`enter`] does. `peers` is the content of [`PEERS`](static@PEERS).
fn add(peers: &mut KVec<Arc<Peer>>, peer: &Arc<Peer>, register: impl FnOnce() -> Result) -> Result {
    let slot = VecSlot::new(peers, GFP_KERNEL)?;
    let group = peer.group();
    group.members.lock().push(peer.clone(), GFP_KERNEL)?;
    register().inspect_err(|_| group.remove(peer))?;
    let joined = IommuGroup::of_software(&peer.dev);
    *group.software_group.lock() = joined;
    slot.fill(peer.clone());
    Ok(())
}

/// Removes a device from its group. The device is no longer registered with VFIO, and cannot change
/// groups any more.
pub(crate) fn leave(peer: &Arc<Peer>) {
    // Other members may be open, so this waits without `PEERS`.
    peer.group().remove(peer);
    let mut peers = PEERS.lock();
    peers.retain(|other| !Arc::ptr_eq(other, peer));
    free_if_empty(&mut peers);
}

/// Handles a write to `peer_to_peer_resource_uuid`: moves a device to the group with a UUID. The
/// group is created if no device has the UUID.
///
/// `peers` is the content of [`PEERS`](static@PEERS). `move_device` moves the device to the
/// software group of the new group's members, or to one of its own if there are no members. It
/// calls its second argument as soon as the move cannot fail any more.
///
/// # Errors
///
/// Nothing changes on error. `EBUSY` if a driver is using the members of the new group; `EXDEV` if
/// the new group has devices of another driver; `ENOMEM`; and the errors of `move_device` and of
/// the device's parent.
fn set_uuid(
    peers: &[Arc<Peer>],
    peer: &Arc<Peer>,
    uuid: Uuid,
    move_device: impl FnOnce(Option<&IommuGroup>, &mut dyn FnMut()) -> Result,
) -> Result {
    if peer.uuid() == uuid {
        return Ok(());
    }
    let mut groups = peers.iter().map(|other| other.group());
    let to = match groups.find(|group| group.uuid == uuid) {
        Some(group) => group,
        None => PeerGroup::new(uuid)?,
    };
    let software_group = to.admit(peer)?;
    move_device(software_group.as_deref(), &mut || peer.change_group(&to))
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(vfio_mdev_peers)]
mod tests {
    use core::ops::Deref;

    use kernel::{
        device::Bound,
        faux, //
    };
    use kernel_ext::{
        compat::EUSERS,
        iommu::SoftwareGroup,
        testing::Random, //
    };

    use super::*;

    /// The device of all peers, and peers of one driver.
    struct Peers {
        parent: faux::Registration,
        peers: KVec<Arc<Peer>>,
    }

    impl Peers {
        /// Creates peers with groups of their own.
        fn new(count: usize) -> Result<Self> {
            let mut this = Self {
                parent: faux::Registration::new(c"vfio_mdev_peers", None)?,
                peers: KVec::new(),
            };
            for _ in 0..count {
                let peer = this.outsider(1, |_, _| Ok(()))?;
                this.peers.push(peer.clone(), GFP_KERNEL)?;
                let group = peer.group();
                group.members.lock().push(peer, GFP_KERNEL)?;
            }
            Ok(this)
        }

        /// Creates a peer that is in no group.
        fn outsider(&self, driver: usize, admit: Admit) -> Result<Arc<Peer>> {
            let dev: &BusDevice = self.parent.as_ref().as_ref();
            Peer::new(dev, DriverKey(driver), Erased::dangling(), admit)
        }
    }

    impl Deref for Peers {
        type Target = [Arc<Peer>];

        fn deref(&self) -> &[Arc<Peer>] {
            &self.peers
        }
    }

    impl Drop for Peers {
        fn drop(&mut self) {
            for peer in &self.peers {
                peer.group().remove(peer);
            }
        }
    }

    /// Does what [`set_uuid`] does without VFIO.
    fn assign(peers: &[Arc<Peer>], index: usize, uuid: Uuid) -> Result {
        set_uuid(peers, &peers[index], uuid, |_, commit| {
            commit();
            Ok(())
        })
    }

    /// Returns whether a device has the UUID.
    fn is_used(peers: &[Arc<Peer>], uuid: Uuid) -> bool {
        peers.iter().any(|peer| peer.uuid() == uuid)
    }

    #[test]
    fn devices_with_one_uuid_share_a_group() -> Result {
        let peers = Peers::new(3)?;
        assert!(!Arc::ptr_eq(&peers[0].group(), &peers[1].group()));
        let former = peers[1].uuid();
        assign(&peers, 1, peers[0].uuid())?;
        assert!(Arc::ptr_eq(&peers[0].group(), &peers[1].group()));
        assert_eq!(peers[0].with_members(|members| members.len()), 2);
        assert_eq!(peers[2].with_members(|members| members.len()), 1);
        // The former group went with its last member.
        assert!(!is_used(&peers, former));
        Ok(())
    }

    #[test]
    fn a_device_joins_only_where_it_is_admitted() -> Result {
        let peers = Peers::new(2)?;
        let refuse: Admit = |_, _| Err(ENOSPC);
        let stranger = peers.outsider(2, refuse)?;
        assert_eq!(peers[0].group().admit(&stranger).err(), Some(EXDEV));
        let sibling = peers.outsider(1, refuse)?;
        assert_eq!(peers[0].group().admit(&sibling).err(), Some(ENOSPC));
        let group = peers[0].group();
        let in_use = group.members.lock();
        assert_eq!(group.admit(&peers[1]).err(), Some(EBUSY));
        drop(in_use);
        assert!(group.admit(&peers[1]).is_ok());
        // Neither a refused nor an abandoned move leaves a group behind.
        let uuid = Uuid::from_bytes([5; 16]);
        let abandoned = set_uuid(&peers, &peers[1], uuid, |_, _| Err(EBUSY));
        assert_eq!(abandoned, Err(EBUSY));
        assert!(!is_used(&peers, uuid));
        let own = sibling.group();
        let refused = set_uuid(&peers, &sibling, peers[0].uuid(), |_, _| Ok(()));
        assert_eq!(refused, Err(ENOSPC));
        assert!(Arc::ptr_eq(&own, &sibling.group()));
        Ok(())
    }

    #[test]
    fn a_failed_registration_leaves_no_memory() -> Result {
        let peers = Peers::new(0)?;
        let peer = peers.outsider(1, |_, _| Ok(()))?;
        assert_eq!(enter(&peer, || Err(EUSERS)), Err(EUSERS));
        assert_eq!(PEERS.lock().capacity(), 0);
        assert_eq!(peer.with_members(|members| members.len()), 0);
        Ok(())
    }

    /// A device of another driver joins the group of a device that is being removed: it has no
    /// members, but still has its UUID.
    #[test]
    fn a_device_that_was_removed_has_no_members_of_another_driver() -> Result {
        let peers = Peers::new(1)?;
        let stranger = peers.outsider(2, |_, _| Ok(()))?;
        peers[0].group().remove(&peers[0]);
        set_uuid(&peers, &stranger, peers[0].uuid(), |_, commit| {
            commit();
            Ok(())
        })?;
        let removed = peers[0].with_members(|members| members.len());
        let joined = stranger.with_members(|members| members.len());
        stranger.group().remove(&stranger);
        assert_eq!((removed, joined), (0, 1));
        Ok(())
    }

    /// A device that is being removed leaves its software group before it leaves its peers.
    #[test]
    fn software_group_is_that_of_the_members_until_the_last_one_has_left() -> Result {
        let peers = Peers::new(2)?;
        let dev: &BusDevice<Bound> = peers.parent.as_ref().as_ref();
        let software_group = SoftwareGroup::new(c"vfio_mdev_peers")?;
        let member = software_group.add(dev)?;
        let uuid = Uuid::from_bytes([4; 16]);
        assign(&peers, 0, uuid)?;
        drop(member);
        let found = peers[0].group().admit(&peers[1])?;
        assert!(found.is_some_and(|found| *found == *software_group));
        Ok(())
    }

    /// The last device of a software group stays in it when its UUID changes. If a peer is being
    /// removed at the same time, the peers that it leaves behind must not get that group.
    #[test]
    fn software_group_goes_with_the_member_that_stays_in_it() -> Result {
        let peers = Peers::new(2)?;
        let dev: &BusDevice<Bound> = peers.parent.as_ref().as_ref();
        let software_group = SoftwareGroup::new(c"vfio_mdev_peers")?;
        let member = software_group.add(dev)?;
        let [old, new] = [[4; 16], [5; 16]].map(Uuid::from_bytes);
        assign(&peers, 0, old)?;
        assign(&peers, 1, old)?;
        assign(&peers, 1, new)?;
        drop(member);
        assert!(peers[0].group().admit(&peers[1])?.is_none());
        let found = peers[1].group().admit(&peers[0])?;
        assert!(found.is_some_and(|found| *found == *software_group));
        Ok(())
    }

    /// Five devices move at random between three UUIDs. Devices with the same UUID have the same
    /// group, which has them as its members.
    #[test]
    fn members_are_the_devices_of_the_group() -> Result {
        let peers = Peers::new(5)?;
        let uuids = [[1; 16], [2; 16], [3; 16]].map(Uuid::from_bytes);
        let mut random = Random::new(1);
        for _ in 0..500 {
            let index = random.below(peers.len() as u64) as usize;
            assign(&peers, index, random.pick(&uuids))?;
            for peer in peers.iter() {
                let same = |other: &&Arc<Peer>| other.uuid() == peer.uuid();
                let count = peers.iter().filter(same).count();
                assert_eq!(peer.with_members(|members| members.len()), count);
                let shared = |other: &Arc<Peer>| Arc::ptr_eq(&other.group(), &peer.group());
                assert!(peer.with_members(|members| members.iter().all(shared)));
            }
        }
        Ok(())
    }
}
