// SPDX-License-Identifier: GPL-2.0

//! The rules for groups, without VFIO.

use kernel::prelude::*;

#[kunit_tests(vfio_mdev_peers)]
mod cases {
    use core::ops::Deref;

    use kernel::{
        device::Bound,
        faux,
        str::CString,
        sync::atomic::{
            Acquire,
            AtomicFlag,
            Release, //
        },
        time::{
            delay::fsleep,
            Delta, //
        },
        workqueue::new_delayed_work, //
    };
    use kernel_ext::{
        compat::EUSERS,
        iommu::SoftwareGroup,
        owned_work::{
            OwnedWork,
            Task, //
        },
        testing::Random, //
    };

    use super::super::*;

    /// Peers in a registry of their own, each with a device of its own.
    struct Fixture {
        registry: Peers,
        peers: KVec<Arc<Peer>>,
        devices: KVec<faux::Registration>,
    }

    impl Fixture {
        /// Creates peers of one driver with groups of their own.
        fn new(count: usize) -> Result<Self> {
            let mut this = Self {
                registry: Peers::new(),
                peers: KVec::new(),
                devices: KVec::new(),
            };
            for _ in 0..count {
                this.add(1, |_, _| Ok(()))?;
            }
            Ok(this)
        }

        /// Adds a peer with a group of its own. Returns its index.
        fn add(&mut self, driver: usize, admit: Admit) -> Result<usize> {
            let index = self.peers.len();
            let name = CString::try_from_fmt(fmt!("vfio_mdev_peers.{}", self.devices.len()))?;
            let device = faux::Registration::new(&name, None)?;
            let dev: &BusDevice = device.as_ref().as_ref();
            let peer = Peer::new(dev, DriverKey(driver), Erased::dangling(), admit, None)?;
            self.devices.push(device, GFP_KERNEL)?;
            self.peers.push(peer.clone(), GFP_KERNEL)?;
            self.registry.add(&peer, || Ok(()))?;
            Ok(index)
        }

        /// Does what a write to the attribute does, without VFIO.
        fn assign(&mut self, index: usize, uuid: Uuid) -> Result {
            self.registry
                .set_uuid(&self.peers[index], uuid, |_, commit| {
                    commit();
                    Ok(())
                })
        }

        /// Returns the last peer, which the case removes.
        fn take_last(&mut self) -> Result<Arc<Peer>> {
            self.peers.pop().ok_or(EINVAL)
        }

        /// Removes all peers.
        fn clear(&mut self) {
            while let Some(peer) = self.peers.pop() {
                self.registry.remove(&peer);
                peer.group().remove(&peer);
            }
        }

        fn dev(&self, index: usize) -> &BusDevice<Bound> {
            self.devices[index].as_ref().as_ref()
        }

        /// Returns the number of members that a peer sees.
        fn members(&self, index: usize) -> usize {
            self.peers[index].with_members(|members| members.len())
        }

        /// Returns whether two peers have one group.
        fn share(&self, a: usize, b: usize) -> bool {
            Arc::ptr_eq(&self.peers[a].group(), &self.peers[b].group())
        }
    }

    impl Deref for Fixture {
        type Target = [Arc<Peer>];

        fn deref(&self) -> &[Arc<Peer>] {
            &self.peers
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            self.clear();
        }
    }

    #[test]
    fn devices_with_one_uuid_share_a_group() -> Result {
        let mut peers = Fixture::new(3)?;
        assert!(!peers.share(0, 1));
        let former = peers[1].uuid();
        peers.assign(1, peers[0].uuid())?;
        assert!(peers.share(0, 1));
        assert_eq!(peers.members(0), 2);
        assert_eq!(peers.members(2), 1);
        // The former group went with its last member.
        assert_eq!(peers.registry.groups_of(former), 0);
        Ok(())
    }

    #[test]
    fn a_device_joins_only_where_it_is_admitted() -> Result {
        let mut peers = Fixture::new(2)?;
        let full = peers.add(1, |_, _| Err(ENOSPC))?;
        // Neither a refused nor an abandoned move leaves a group behind.
        let uuid = Uuid::from_bytes([5; 16]);
        let (peer, registry) = (peers[1].clone(), &mut peers.registry);
        let abandoned = registry.set_uuid(&peer, uuid, |_, _| Err(EBUSY));
        assert_eq!(abandoned, Err(EBUSY));
        assert_eq!(peers.registry.groups_of(uuid), 0);
        let own = peers[full].group();
        assert_eq!(peers.assign(full, peers[0].uuid()), Err(ENOSPC));
        assert!(Arc::ptr_eq(&own, &peers[full].group()));
        assert_eq!(peers.registry.groups_of(peers[0].uuid()), 1);
        Ok(())
    }

    /// A thread that uses the members of a group until it is told to end, or for ten seconds.
    struct User {
        group: Arc<PeerGroup>,
        uses: AtomicFlag,
        end: AtomicFlag,
    }

    impl Task for User {
        fn run(&self) {
            let members = self.group.members.lock();
            self.uses.store(true, Release);
            for _ in 0..10_000 {
                if self.end.load(Acquire) {
                    break;
                }
                fsleep(Delta::from_millis(1));
            }
            drop(members);
        }
    }

    /// A thread that uses the members of a group delays no device that goes into another one.
    #[test]
    fn a_device_does_not_wait_for_groups_that_it_cannot_join() -> Result {
        let mut peers = Fixture::new(2)?;
        let apart = peers.add(1, |_, _| Err(EXDEV))?;
        let full = peers.add(1, |_, _| Err(ENOSPC))?;
        let (uuid, group) = (peers[0].uuid(), peers[0].group());
        let user = User {
            group,
            uses: AtomicFlag::new(false),
            end: AtomicFlag::new(false),
        };
        let thread = OwnedWork::new(user, new_delayed_work!("vfio_mdev::user"))?;
        thread.schedule(0);
        while !thread.task().uses.load(Acquire) {
            fsleep(Delta::from_millis(1));
        }
        assert_eq!(peers.assign(1, uuid), Err(EBUSY));
        assert_eq!(peers.assign(full, uuid), Err(ENOSPC));
        peers.assign(apart, uuid)?;
        assert!(!peers.share(0, apart));
        assert_eq!(peers.members(apart), 1);
        thread.task().end.store(true, Release);
        drop(thread);
        peers.assign(1, uuid)?;
        assert!(peers.share(0, 1));
        Ok(())
    }

    /// Devices of two drivers, and devices that a driver keeps apart, have the same UUID.
    #[test]
    fn a_uuid_has_a_group_for_each_driver_and_for_devices_that_cannot_share() -> Result {
        let mut peers = Fixture::new(2)?;
        let others = [peers.add(2, |_, _| Ok(()))?, peers.add(2, |_, _| Ok(()))?];
        let apart = peers.add(1, |_, _| Err(EXDEV))?;
        let uuid = Uuid::from_bytes([6; 16]);
        for index in 0..peers.len() {
            peers.assign(index, uuid)?;
            assert_eq!(peers[index].uuid(), uuid);
        }
        assert!(peers.share(0, 1));
        assert!(peers.share(others[0], others[1]));
        assert!(!peers.share(0, others[0]));
        assert!(!peers.share(0, apart));
        assert_eq!(peers.registry.groups_of(uuid), 3);
        // A group goes with its last device. The others keep the UUID.
        peers.assign(apart, Uuid::from_bytes([7; 16]))?;
        assert_eq!(peers.registry.groups_of(uuid), 2);
        peers.assign(0, Uuid::from_bytes([8; 16]))?;
        peers.assign(1, Uuid::from_bytes([8; 16]))?;
        assert_eq!(peers.registry.groups_of(uuid), 1);
        Ok(())
    }

    /// A device can be opened before the registration returns.
    #[test]
    fn a_failed_registration_leaves_nothing_behind() -> Result {
        let mut peers = Fixture::new(1)?;
        let peer = peers[0].clone();
        peers.clear();
        assert!(peers.registry.is_empty());
        let mut members = 0;
        let failed = peers.registry.add(&peer, || {
            members = peer.with_members(|members| members.len());
            Err(EUSERS)
        });
        assert_eq!((failed, members), (Err(EUSERS), 1));
        assert!(peers.registry.is_empty());
        assert_eq!(peer.with_members(|members| members.len()), 0);
        Ok(())
    }

    /// A device that is being removed leaves the list of all peers before it leaves its group. In
    /// between, others join devices with its UUID.
    #[test]
    fn a_device_that_is_being_removed_has_no_members() -> Result {
        let mut peers = Fixture::new(2)?;
        let uuid = peers[0].uuid();
        peers.assign(1, uuid)?;
        let leaves = peers.take_last()?;
        peers.registry.remove(&leaves);
        // Drivers see it until it has left the group.
        assert_eq!(peers.members(0), 2);
        let sibling = peers.add(1, |_, devices| {
            if devices.len() > 1 {
                Err(ENOSPC)
            } else {
                Ok(())
            }
        })?;
        peers.assign(sibling, uuid)?;
        leaves.group().remove(&leaves);
        assert_eq!(leaves.with_members(|members| members.len()), 0);
        assert_eq!((peers.members(0), peers.members(sibling)), (2, 2));
        assert_eq!(peers.registry.groups_of(uuid), 1);
        Ok(())
    }

    /// A group whose last device is being removed gets no further members.
    #[test]
    fn a_group_ends_before_its_last_device_leaves_it() -> Result {
        let mut peers = Fixture::new(2)?;
        let uuid = peers[1].uuid();
        let leaves = peers.take_last()?;
        peers.registry.remove(&leaves);
        peers.assign(0, uuid)?;
        assert!(!Arc::ptr_eq(&leaves.group(), &peers[0].group()));
        assert_eq!(peers.members(0), 1);
        leaves.group().remove(&leaves);
        assert_eq!(peers.registry.groups_of(uuid), 1);
        Ok(())
    }

    /// Returns the software group that a device would join with a UUID.
    fn software_group(
        peers: &mut Fixture,
        index: usize,
        uuid: Uuid,
    ) -> Result<Option<ARef<IommuGroup>>> {
        let (peer, mut found) = (peers[index].clone(), None);
        let asked = peers.registry.set_uuid(&peer, uuid, |group, _| {
            found = group.map(ARef::from);
            Err(EAGAIN)
        });
        assert_eq!(asked, Err(EAGAIN));
        Ok(found)
    }

    /// A device that is being removed leaves its software group before it leaves its peers.
    #[test]
    fn software_group_is_that_of_the_members_until_the_last_one_has_left() -> Result {
        let mut peers = Fixture::new(2)?;
        let joined = SoftwareGroup::new(c"vfio_mdev_peers")?;
        let member = joined.add(peers.dev(0))?;
        let uuid = Uuid::from_bytes([4; 16]);
        peers.assign(0, uuid)?;
        drop(member);
        let found = software_group(&mut peers, 1, uuid)?;
        assert!(found.is_some_and(|found| *found == *joined));
        Ok(())
    }

    /// The last device of a software group stays in it when its UUID changes. If a peer is being
    /// removed at the same time, the peers that it leaves behind must not get that group.
    #[test]
    fn software_group_goes_with_the_member_that_stays_in_it() -> Result {
        let mut peers = Fixture::new(2)?;
        let joined = SoftwareGroup::new(c"vfio_mdev_peers")?;
        let members = [joined.add(peers.dev(0))?, joined.add(peers.dev(1))?];
        let [old, new] = [[4; 16], [5; 16]].map(Uuid::from_bytes);
        peers.assign(0, old)?;
        peers.assign(1, old)?;
        peers.assign(1, new)?;
        drop(members);
        assert!(software_group(&mut peers, 1, old)?.is_none());
        let found = software_group(&mut peers, 0, new)?;
        assert!(found.is_some_and(|found| *found == *joined));
        Ok(())
    }

    /// Six devices of two drivers move at random between three UUIDs. Devices of one driver with the
    /// same UUID have the same group, which has them as its members.
    #[test]
    fn members_are_the_devices_of_the_group() -> Result {
        let mut peers = Fixture::new(3)?;
        for _ in 0..3 {
            peers.add(2, |_, _| Ok(()))?;
        }
        let uuids = [[1; 16], [2; 16], [3; 16]].map(Uuid::from_bytes);
        let mut random = Random::new(1);
        for _ in 0..500 {
            let index = random.below(peers.len() as u64) as usize;
            peers.assign(index, random.pick(&uuids))?;
            for peer in peers.iter() {
                let same =
                    |other: &&Arc<Peer>| other.uuid() == peer.uuid() && other.driver == peer.driver;
                let count = peers.iter().filter(same).count();
                assert_eq!(peer.with_members(|members| members.len()), count);
                let shared = |other: &Arc<Peer>| Arc::ptr_eq(&other.group(), &peer.group());
                assert!(peer.with_members(|members| members.iter().all(shared)));
            }
            for uuid in uuids {
                let used = |&driver: &usize| {
                    let mut peers = peers.iter();
                    peers.any(|peer| peer.uuid() == uuid && peer.driver == DriverKey(driver))
                };
                let drivers = [1, 2].iter().filter(|driver| used(driver)).count();
                assert_eq!(peers.registry.groups_of(uuid), drivers);
            }
        }
        // The list is in a static, which is never dropped.
        peers.clear();
        assert!(peers.registry.is_empty());
        Ok(())
    }
}
