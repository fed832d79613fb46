// SPDX-License-Identifier: GPL-2.0

//! The bus `mdev`: the UUIDs of its devices, and the number of devices that each parent can still
//! have.

#[allow(unsafe_code)]
mod abi;

use kernel::{
    prelude::*,
    sync::Arc, //
};
use kernel_ext::{
    compat::EUSERS,
    tree::{
        Node,
        Tree, //
    }, //
};

use crate::uuid::Uuid;

use abi::REGISTRY;
pub(crate) use abi::{
    as_ptr,
    init_lock,
    link_parent,
    register_driver,
    unlink_parent,
    BusRegistration,
    CompatClass, //
};

/// Data about all parents and devices.
pub(crate) struct Registry {
    uuids: Tree<Uuid, ()>,
    parents: Tree<ParentKey, Option<Arc<Instances>>>,
}

/// Identifies a registered parent, by the address of its structure.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ParentKey(pub(crate) usize);

/// The number of devices that a parent can still have. Changed with [`REGISTRY`](static@REGISTRY)
/// locked.
pub(crate) struct Instances(core::sync::atomic::AtomicU32);

impl Instances {
    fn new(limit: u32) -> Self {
        Self(limit.into())
    }

    fn available(&self) -> u32 {
        self.0.load(core::sync::atomic::Ordering::Relaxed)
    }

    /// Counts a device.
    ///
    /// # Errors
    ///
    /// `EUSERS` if the parent cannot have another device.
    fn take(&self) -> Result {
        let left = self.available().checked_sub(1).ok_or(EUSERS)?;
        self.0.store(left, core::sync::atomic::Ordering::Relaxed);
        Ok(())
    }

    fn release(&self) {
        self.0.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
    }
}

impl Registry {
    pub(crate) const fn new() -> Self {
        Self {
            uuids: Tree::new(),
            parents: Tree::new(),
        }
    }
}

/// Adds a parent. `limit` is the maximum number of its devices, or `None` if its driver counts
/// them.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn add_parent(parent: ParentKey, limit: Option<u32>) -> Result {
    let instances = match limit {
        Some(limit) => Some(Arc::new(Instances::new(limit), GFP_KERNEL)?),
        None => None,
    };
    let node = Node::new(parent, instances)?;
    REGISTRY.lock().parents.insert(node);
    Ok(())
}

/// Removes a parent. Its remaining devices are still counted, without effect.
pub(crate) fn remove_parent(parent: ParentKey) {
    REGISTRY.lock().parents.remove(&parent);
}

/// Returns the number of devices that the parent can still have, or `None` if its driver counts
/// them.
pub(crate) fn available(parent: ParentKey) -> Option<u32> {
    let registry = REGISTRY.lock();
    let instances = registry.parents.get(&parent)?.as_ref()?;
    Some(instances.available())
}

/// The UUID of a device, and one of the instances of its parent. Dropping it frees both.
pub(crate) struct Reservation {
    uuid: Uuid,
    instances: Option<Arc<Instances>>,
}

impl Reservation {
    /// Reserves `uuid` for a device of `parent`.
    ///
    /// # Errors
    ///
    /// `EEXIST` if a device of any parent has the UUID, `EUSERS` if this parent cannot have another
    /// device, `ENODEV` if the parent is not registered, `ENOMEM`.
    pub(crate) fn new(uuid: Uuid, parent: ParentKey) -> Result<Self> {
        let mut registry = REGISTRY.lock();
        if registry.uuids.contains(&uuid) {
            return Err(EEXIST);
        }
        let instances = registry.parents.get(&parent).ok_or(ENODEV)?.clone();
        if let Some(instances) = &instances {
            instances.take()?;
        }
        let node = Node::new(uuid, ()).inspect_err(|_| {
            if let Some(instances) = &instances {
                instances.release();
            }
        })?;
        registry.uuids.insert(node);
        Ok(Self { uuid, instances })
    }

    pub(crate) fn uuid(&self) -> Uuid {
        self.uuid
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut registry = REGISTRY.lock();
        registry.uuids.remove(&self.uuid);
        if let Some(instances) = &self.instances {
            instances.release();
        }
    }
}

#[kunit_tests(vfio_mdev_registry)]
mod tests {
    use super::*;

    /// Two parents without structures.
    const PARENTS: [ParentKey; 2] = [ParentKey(1), ParentKey(2)];

    fn uuid(last: u8) -> Result<Uuid> {
        let mut text = *b"5d0d5dd0-3c06-4a9c-8d0a-4f2f6f3ad70?";
        text[Uuid::TEXT_LEN - 1] = last;
        Uuid::parse(&text).ok_or(EINVAL)
    }

    #[test]
    fn counts_instances() {
        let instances = Instances::new(2);
        assert_eq!(instances.take(), Ok(()));
        assert_eq!(instances.take(), Ok(()));
        assert_eq!(instances.take(), Err(EUSERS));
        instances.release();
        assert_eq!(instances.available(), 1);
        assert_eq!(Instances::new(0).take(), Err(EUSERS));
    }

    #[test]
    fn uuids_are_unique_over_all_parents() -> Result {
        add_parent(PARENTS[0], Some(1))?;
        add_parent(PARENTS[1], None)?;
        let a = Reservation::new(uuid(b'a')?, PARENTS[0])?;
        assert_eq!(available(PARENTS[0]), Some(0));
        assert_eq!(available(PARENTS[1]), None);
        for parent in PARENTS {
            assert_eq!(Reservation::new(uuid(b'a')?, parent).err(), Some(EEXIST));
        }
        assert_eq!(
            Reservation::new(uuid(b'b')?, PARENTS[0]).err(),
            Some(EUSERS)
        );
        let b = Reservation::new(uuid(b'b')?, PARENTS[1])?;
        drop(a);
        assert_eq!(available(PARENTS[0]), Some(1));
        // A device may outlive its parent.
        remove_parent(PARENTS[1]);
        assert_eq!(
            Reservation::new(uuid(b'c')?, PARENTS[1]).err(),
            Some(ENODEV)
        );
        drop(b);
        drop(Reservation::new(uuid(b'b')?, PARENTS[0])?);
        remove_parent(PARENTS[0]);
        Ok(())
    }
}
