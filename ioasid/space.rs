// SPDX-License-Identifier: GPL-2.0

//! A space of ids, with its sets, notifiers and allocators.
//!
//! Lookups take no lock. Ids and sets are reference counted, so the holder of a reference can use
//! the object while others are created and removed. [`system()`] is the space of this system.

#[allow(unsafe_code)]
mod abi;

use kernel::{
    c_str,
    prelude::*,
    static_lock_class,
    sync::{
        atomic::{
            Atomic,
            Relaxed,
            Release, //
        },
        new_mutex,
        new_spinlock_irq,
        rcu,
        Arc,
        Mutex,
        SpinLockIrq, //
    }, //
};

use crate::{
    allocator::{
        AllocatorList,
        DefaultAllocator,
        Origin,
        DEFAULT_ALLOCATOR, //
    },
    gfp::Gfp,
    global_pasids::GlobalPasids,
    id::{
        entry::{
            Entry,
            Found, //
        },
        key::Key,
        range::DEFAULT_CAPACITY,
        state::IdState, //
    },
    id_tree::{
        IdTree,
        NodeCaches, //
    },
    kmem_cache::KmemCache,
    notifier::NotifierChain,
    read_once::read_once,
    set::{
        abi::SetMap,
        account::Account,
        SetId,
        SetState,
        Token, //
    },
    srcu_list::SrcuList, //
};

pub use self::abi::system;

pub(crate) use self::abi::Installed;

/// The slab caches for the ids and the sets of spaces.
#[derive(Clone)]
pub(crate) struct KmemCaches {
    ids: Arc<NodeCaches<Entry>>,
    sets: Arc<KmemCache<SetState>>,
}

impl KmemCaches {
    /// Creates the caches, which have three names in `/proc/slabinfo`. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            ids: NodeCaches::new(c_str!("ioasid_leaf"), c_str!("ioasid_node"))?,
            sets: Arc::new(KmemCache::new(c_str!("ioasid_set"))?, GFP_KERNEL)?,
        })
    }

    /// Returns the caches of the system's space, for other spaces.
    #[cfg(CONFIG_KUNIT)]
    pub(crate) fn shared() -> Result<Self> {
        Ok(system().caches.clone())
    }
}

/// A space of ids: the system's space, or a space of a test.
#[pin_data]
pub struct Space {
    caches: KmemCaches,
    #[pin]
    pub(crate) ids: IdTree<Entry>,
    /// By number. [`SetId::ROOT`] has the ids in no set.
    #[pin]
    pub(crate) sets: SetMap,
    /// Held to change the SPIDs of ids.
    #[pin]
    pub(crate) spid_lock: SpinLockIrq<()>,
    #[pin]
    pub(crate) notifiers: NotifierChain,
    #[pin]
    pub(crate) allocators: AllocatorList,
    pub(crate) own: DefaultAllocator,
    pub(crate) orphans: Atomic<i32>,
    /// The ids that were taken from the root's account by
    /// [`reserve_capacity`](Self::reserve_capacity).
    reserved: Account,
    /// The lowest id of the default allocator.
    floor: u32,
    /// The ids of the default allocator are below this number.
    capacity: Atomic<u32>,
    #[pin]
    pub(crate) setup: Mutex<Setup>,
}

/// Rarely changed data.
pub(crate) struct Setup {
    /// The ids of the default allocator, which are reserved in the kernel's PASID space.
    pasids: Option<GlobalPasids>,
    /// Whether [`install_capacity`](Space::install_capacity) has set the capacity.
    installed: bool,
    /// The highest number that was given to a kind of custom allocators.
    pub(crate) last_origin: Origin,
    /// The generation of the newest set.
    pub(crate) last_generation: u32,
}

impl Space {
    /// Creates a space of the ids from `floor` to `capacity - 1`, and of the ids that custom
    /// allocators return.
    ///
    /// If `pasids` is given, the own ids are restricted to those that it holds.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(
        caches: &KmemCaches,
        floor: u32,
        capacity: u32,
        pasids: Option<GlobalPasids>,
    ) -> impl PinInit<Self, Error> {
        let caches = caches.clone();
        let (ids, sets) = (caches.ids.clone(), caches.sets.clone());
        try_pin_init!(Self {
            caches,
            ids <- IdTree::new(ids, c_str!("ioasid::ids"), static_lock_class!()),
            sets <- SetMap::new(sets),
            spid_lock <- new_spinlock_irq!((), "ioasid::Space::spid_lock"),
            notifiers <- SrcuList::new(c_str!("ioasid::notifiers"), static_lock_class!()),
            allocators <- SrcuList::new(c_str!("ioasid::allocators"), static_lock_class!()),
            own: DefaultAllocator::new(),
            orphans: Atomic::new(0),
            reserved: Account::new(u32::MAX),
            floor,
            capacity: Atomic::new(capacity),
            setup <- new_mutex!(Setup {
                pasids: None,
                installed: false,
                last_origin: DEFAULT_ALLOCATOR,
                last_generation: 0,
            }, "ioasid::Space::setup"),
        })
        .pin_chain(move |space| {
            space.exclude_taken(pasids.as_ref(), capacity)?;
            let own = space.count_own(pasids.as_ref(), capacity);
            space.setup.lock().pasids = pasids;
            let root = SetState::new(Token::None, own, SetId::ROOT.generation());
            space.sets.insert(SetId::ROOT.number(), root, Gfp::Kernel)
        })
    }

    /// Excludes from the default allocator the ids that the kernel has already allocated.
    fn exclude_taken(&self, pasids: Option<&GlobalPasids>, capacity: u32) -> Result {
        let Some(pasids) = pasids else {
            return Ok(());
        };
        for id in (self.floor..capacity).filter(|&id| !pasids.holds(id)) {
            self.ids.insert(id, Gfp::Kernel, |_, _| ())?;
        }
        Ok(())
    }

    /// Returns the number of ids of the default allocator if its capacity is `capacity`, without
    /// those that the kernel has allocated.
    fn count_own(&self, pasids: Option<&GlobalPasids>, capacity: u32) -> u32 {
        match pasids {
            Some(pasids) => pasids.count(self.floor, capacity),
            None => capacity.saturating_sub(self.floor),
        }
    }

    /// Returns the number of ids of the default allocator, without those that the kernel has
    /// allocated. Sleeps.
    pub(crate) fn own_total(&self) -> u32 {
        let setup = self.setup.lock();
        self.count_own(setup.pasids.as_ref(), self.capacity())
    }

    /// Returns the end of the default allocator: all own ids are lower.
    pub fn capacity(&self) -> u32 {
        read_once(&self.capacity)
    }

    /// Lowers the capacity. This is possible once, and only while no id is reserved or allocated.
    /// Sleeps.
    ///
    /// The ids above go back to the kernel. During the call all ids count as reserved.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the capacity was already set, or if ids are in use; `EINVAL` if no ids would be
    /// left, or if `total` is more than the current capacity: the kernel may be using the ids
    /// above.
    pub fn install_capacity(&self, total: u32) -> Result {
        let mut setup = self.setup.lock();
        if setup.installed {
            return Err(EBUSY);
        }
        let before = self.capacity();
        if total > before {
            return Err(EINVAL);
        }
        let own = self.count_own(setup.pasids.as_ref(), total);
        if own == 0 {
            return Err(EINVAL);
        }
        // An allocation takes from the account before it reads the capacity.
        self.with_set(SetId::ROOT, |root| root.account.take_all())?;
        self.capacity.store(total, Release);
        setup.installed = true;
        self.give_quota(SetId::ROOT, own);
        if let Some(pasids) = &mut setup.pasids {
            pasids.give_back(total, before);
        }
        Ok(())
    }

    /// Reserves `count` ids for the caller. They are not part of the quota of any set.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if fewer ids are left.
    pub fn reserve_capacity(&self, count: u32) -> Result {
        self.with_set(SetId::ROOT, |root| root.account.take(count))
            .map_err(|_| ENOSPC)?;
        self.reserved
            .take(count)
            .inspect_err(|_| self.give_quota(SetId::ROOT, count))
    }

    /// Cancels reservations of [`reserve_capacity`](Self::reserve_capacity).
    ///
    /// # Errors
    ///
    /// `EINVAL` if `count` is more than is reserved. Then nothing changes.
    pub fn cancel_capacity(&self, count: u32) -> Result {
        let _open = self.reserved.give(count)?;
        self.give_quota(SetId::ROOT, count);
        Ok(())
    }

    /// Returns the state of an id.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such id; `EACCES` if it is not in the key's set.
    pub fn state(&self, key: Key) -> Result<IdState> {
        self.with_id(key, |found| Ok(found.lifetime.state()))
    }

    /// Returns the lowest id of the default allocator.
    pub(crate) fn floor(&self) -> u32 {
        self.floor
    }

    /// Returns the number of ids of the default allocator that are in use.
    pub(crate) fn own_ids(&self) -> u32 {
        self.own.outstanding()
    }

    /// Returns the number of ids whose allocator is gone.
    pub(crate) fn orphans(&self) -> u32 {
        self.orphans.load(Relaxed).max(0) as u32
    }

    /// Whether there are no ids and no sets.
    #[cfg(CONFIG_KUNIT)]
    pub(crate) fn is_unused(&self) -> bool {
        let mut sets = 0;
        self.for_each_set(|_, _| sets += 1);
        self.next_id(0, |_, _| ()).is_none() && sets == 0
    }

    /// Warns about ids that are still allocated when the space is about to be dropped.
    pub(crate) fn check_unused(&self) {
        if let Some(id) = self.next_id(0, |id, _| id) {
            pr_warn!(
                "ids are still allocated at module exit, the lowest is {}\n",
                id
            );
        }
    }

    /// Calls `f` with an id.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such id; `EACCES` if it is not in the key's set; the errors of `f`.
    #[inline]
    pub(crate) fn with_id<R>(
        &self,
        key: Key,
        f: impl FnOnce(&Found<'_>) -> Result<R>,
    ) -> Result<R> {
        let guard = rcu::Guard::new();
        let entry = self.ids.get(key.id, &guard).ok_or(ENOENT)?;
        f(&entry.lookup(key.filter)?)
    }

    /// Calls `f` with the data of a set.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such set; the errors of `f`.
    #[inline]
    pub(crate) fn with_set<R>(
        &self,
        set: SetId,
        f: impl FnOnce(Pin<&SetState>) -> Result<R>,
    ) -> Result<R> {
        let guard = rcu::Guard::new();
        let state = self.sets.get(set.number(), &guard);
        f(state
            .filter(|state| state.generation == set.generation())
            .ok_or(EINVAL)?)
    }
}

/// Checks that there can be PASIDs from `first` to `capacity - 1`.
///
/// # Errors
///
/// `EINVAL` if the range is empty or ends above 20 bits, which the kernel does not support.
pub(crate) fn check_limits(first: u32, capacity: u32) -> Result {
    if first >= capacity || capacity > DEFAULT_CAPACITY {
        return Err(EINVAL);
    }
    Ok(())
}

#[kunit_tests(ioasid_limits)]
mod tests {
    use super::*;
    use crate::id::range::INVALID;

    #[test]
    fn pasids_end_at_20_bits() {
        for capacity in [0x8001, DEFAULT_CAPACITY - 1, DEFAULT_CAPACITY] {
            assert_eq!(check_limits(0x8000, capacity), Ok(()));
        }
        for capacity in [0, 1, 0x8000, DEFAULT_CAPACITY + 1, INVALID - 1, INVALID] {
            assert_eq!(check_limits(0x8000, capacity), Err(EINVAL));
        }
    }
}
