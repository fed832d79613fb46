// SPDX-License-Identifier: GPL-2.0

//! The groups of each UUID, with their devices.

use kernel::{
    error::code,
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    }, //
};
use kernel_ext::{
    iommu::Group as IommuGroup,
    tree::{
        Node,
        Tree, //
    }, //
};

use super::{
    Peer,
    PeerGroup, //
};
use crate::uuid::Uuid;

/// All devices that are registered with VFIO and can be in a group with others.
pub(super) struct Peers {
    /// The groups of each UUID that a device has, in the order in which they were created.
    uuids: Tree<Uuid, KVec<Entry>>,
}

/// A group of a UUID.
struct Entry {
    group: Arc<PeerGroup>,
    /// The devices whose [`Peer::group`] this is, in the order in which they joined. The driver is
    /// asked about these instead of [`PeerGroup::members`], which another thread may have locked for
    /// as long as a process likes.
    devices: KVec<Arc<Peer>>,
}

impl Peers {
    /// Returns a list without devices.
    pub(super) const fn new() -> Self {
        Self { uuids: Tree::new() }
    }

    /// Adds a peer with a group of its own, which `register` registers with VFIO.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and the errors of `register`. Then the peer was not added.
    pub(super) fn add(&mut self, peer: &Arc<Peer>, register: impl FnOnce() -> Result) -> Result {
        let group = peer.group();
        self.reserve(&group)?;
        // INVARIANT: By the type invariant of `Peer` the group has the driver of the peer.
        let added = group.members.lock().push(peer.clone(), GFP_KERNEL);
        let registered = added.map_err(Error::from).and_then(|()| register());
        if let Err(error) = registered {
            group.remove(peer);
            self.prune(group.uuid);
            return Err(error);
        }
        group.note_software_group_of(peer);
        self.enter(&group, peer);
        Ok(())
    }

    /// Removes a peer. It may still be a member of its group. A static is never dropped: without
    /// devices, no memory is left.
    pub(super) fn remove(&mut self, peer: &Arc<Peer>) {
        self.withdraw(&peer.group(), peer);
    }

    /// Handles a write to `peer_to_peer_resource_uuid`: moves a device to a group with a UUID. The
    /// group is created if no group with the UUID has the device's driver, or if the driver refuses
    /// all of them with `EXDEV`.
    ///
    /// `move_device` moves the device to the software group of the new group's members, or to one
    /// of its own if there are no members. It calls its second argument as soon as the move cannot
    /// fail any more.
    ///
    /// # Errors
    ///
    /// Nothing changes on error. `EBUSY` if a driver is using the members of the new group;
    /// `ENOMEM`; the errors of `move_device`, and those of the device's driver except `EXDEV`.
    pub(super) fn set_uuid(
        &mut self,
        peer: &Arc<Peer>,
        uuid: Uuid,
        move_device: impl FnOnce(Option<&IommuGroup>, &mut dyn FnMut()) -> Result,
    ) -> Result {
        let from = peer.group();
        if from.uuid == uuid {
            return Ok(());
        }
        let (to, software_group) = self.group_for(peer, uuid)?;
        let moved = move_device(software_group.as_deref(), &mut || peer.change_group(&to));
        if moved.is_err() {
            self.prune(uuid);
            return moved;
        }
        self.enter(&to, peer);
        self.withdraw(&from, peer);
        Ok(())
    }

    /// Returns the numbers of the software groups whose devices have the UUID.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn software_groups(&self, uuid: Uuid) -> Result<KVec<i32>> {
        let mut numbers = KVec::new();
        for entry in self.uuids.get(&uuid).into_iter().flatten() {
            let software_group = entry.group.software_group.lock().clone();
            if let Some(software_group) = software_group {
                numbers.push(software_group.id(), GFP_KERNEL)?;
            }
        }
        Ok(numbers)
    }

    /// Returns the number of groups of a UUID.
    #[cfg(CONFIG_KUNIT)]
    pub(super) fn groups_of(&self, uuid: Uuid) -> usize {
        self.uuids.get(&uuid).map_or(0, KVec::len)
    }

    /// Returns whether there are no groups.
    #[cfg(CONFIG_KUNIT)]
    pub(super) fn is_empty(&self) -> bool {
        self.uuids.is_empty()
    }

    /// Returns the group of a UUID that `peer` can join, with room for it, and the software group of
    /// its members. The group has the driver of the peer. [`Peers::prune`] removes the group if the
    /// peer doesn't join it.
    fn group_for(
        &mut self,
        peer: &Peer,
        uuid: Uuid,
    ) -> Result<(Arc<PeerGroup>, Option<ARef<IommuGroup>>)> {
        for entry in self.uuids.get_mut(&uuid).into_iter().flatten() {
            if entry.group.driver != peer.driver {
                continue;
            }
            match (peer.admit)(peer, &entry.devices) {
                Ok(()) => {
                    entry.group.make_room()?;
                    entry.devices.reserve(1, GFP_KERNEL)?;
                    let software_group = entry.group.software_group.lock().clone();
                    return Ok((entry.group.clone(), software_group));
                }
                Err(code::EXDEV) => {}
                Err(error) => return Err(error),
            }
        }
        let group = PeerGroup::new(uuid, peer.driver)?;
        group.make_room()?;
        self.reserve(&group)?;
        Ok((group, None))
    }

    /// Adds a group without devices, with room for one.
    fn reserve(&mut self, group: &Arc<PeerGroup>) -> Result {
        let entry = Entry {
            group: group.clone(),
            devices: KVec::with_capacity(1, GFP_KERNEL)?,
        };
        if let Some(entries) = self.uuids.get_mut(&group.uuid) {
            entries.push(entry, GFP_KERNEL)?;
            return Ok(());
        }
        let mut entries = KVec::with_capacity(1, GFP_KERNEL)?;
        entries.push(entry, GFP_KERNEL)?;
        self.uuids.insert(Node::new(group.uuid, entries)?);
        Ok(())
    }

    fn entry(&mut self, group: &Arc<PeerGroup>) -> Option<&mut Entry> {
        let entries = self.uuids.get_mut(&group.uuid)?;
        entries
            .iter_mut()
            .find(|entry| Arc::ptr_eq(&entry.group, group))
    }

    /// Adds a device to those of a group, which has room for it.
    fn enter(&mut self, group: &Arc<PeerGroup>, peer: &Arc<Peer>) {
        let entry = self.entry(group);
        let added = entry.map(|entry| entry.devices.push_within_capacity(peer.clone()));
        debug_assert!(matches!(added, Some(Ok(()))));
    }

    /// Removes a device from those of a group. A group without devices is removed.
    fn withdraw(&mut self, group: &Arc<PeerGroup>, peer: &Arc<Peer>) {
        if let Some(entry) = self.entry(group) {
            entry.devices.retain(|device| !Arc::ptr_eq(device, peer));
        }
        self.prune(group.uuid);
    }

    /// Removes the groups of a UUID that have no devices.
    fn prune(&mut self, uuid: Uuid) {
        let Some(entries) = self.uuids.get_mut(&uuid) else {
            return;
        };
        entries.retain(|entry| !entry.devices.is_empty());
        if entries.is_empty() {
            self.uuids.remove(&uuid);
        }
    }
}
