// SPDX-License-Identifier: GPL-2.0

//! A space of ids, with its sets, listeners and allocators.
//!
//! Lookups take no lock. Ids and sets are reference counted, so the holder of a reference can use
//! the object while others are created and removed.

mod ids;
mod sets;
mod sources;
mod spids;

pub use sources::Registration;

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
    },
};

use kernel_ext::{
    gfp::Gfp,
    id_map::IdMap,
    id_table::{
        self,
        IdTable, //
    },
    iommu::pasid::GlobalPasids,
    published::Reader,
    read_once::read_once,
    slab::Slab, //
};

use crate::{
    account::Account,
    entry::{
        Entry,
        Found, //
    },
    key::Key,
    notify::Listeners,
    roster::Roster,
    set::{
        SetState,
        Token, //
    },
    set_id::SetId,
    source::{
        Origin,
        Own,
        Source,
        Sources,
        OWN, //
    },
    state::State,
};

/// The memory caches for spaces.
#[derive(Clone)]
pub struct Memory {
    ids: Arc<id_table::Memory<Entry>>,
    sets: Arc<Slab<SetState>>,
}

impl Memory {
    /// Creates the caches, which have three names in `/proc/slabinfo`. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            ids: id_table::Memory::new(c_str!("ioasid_leaf"), c_str!("ioasid_node"))?,
            sets: Arc::new(Slab::new(c_str!("ioasid_set"))?, GFP_KERNEL)?,
        })
    }

    /// Returns the caches of the system's space, for other spaces.
    #[cfg(CONFIG_KUNIT)]
    pub(crate) fn shared() -> Result<Self> {
        Ok(crate::abi::system::system().memory.clone())
    }
}

/// A space of ids: the system's space, or a space of a test.
#[pin_data]
pub struct Space {
    memory: Memory,
    #[pin]
    ids: IdTable<Entry>,
    /// By number. [`SetId::ROOT`] has the ids in no set.
    #[pin]
    sets: IdMap<SetState>,
    /// Held to change the SPIDs of ids.
    #[pin]
    names: SpinLockIrq<()>,
    #[pin]
    listeners: Listeners,
    #[pin]
    sources: Sources,
    own: Own,
    orphans: Atomic<i32>,
    /// The ids that were taken from the root's account by
    /// [`reserve_capacity`](Self::reserve_capacity).
    reserved: Account,
    /// The lowest id of the own space.
    floor: u32,
    /// The ids of the own space are below this number.
    capacity: Atomic<u32>,
    #[pin]
    setup: Mutex<Setup>,
}

/// Rarely changed data.
struct Setup {
    /// The ids of the own space, which are reserved in the kernel's PASID space.
    pasids: Option<GlobalPasids>,
    /// Whether [`install_capacity`](Space::install_capacity) has set the capacity.
    installed: bool,
    /// The highest number that was given to a kind of custom allocators.
    last_origin: Origin,
    /// The generation of the newest set.
    last_generation: u32,
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
        memory: &Memory,
        floor: u32,
        capacity: u32,
        pasids: Option<GlobalPasids>,
    ) -> impl PinInit<Self, Error> {
        let memory = memory.clone();
        let (ids, sets) = (memory.ids.clone(), memory.sets.clone());
        try_pin_init!(Self {
            memory,
            ids <- IdTable::new(ids, c_str!("ioasid::ids"), static_lock_class!()),
            sets <- IdMap::new(sets),
            names <- new_spinlock_irq!((), "ioasid::Space::names"),
            listeners <- Roster::new(c_str!("ioasid::listeners"), static_lock_class!()),
            sources <- Roster::new(c_str!("ioasid::sources"), static_lock_class!()),
            own: Own::new(),
            orphans: Atomic::new(0),
            reserved: Account::new(u32::MAX),
            floor,
            capacity: Atomic::new(capacity),
            setup <- new_mutex!(Setup {
                pasids: None,
                installed: false,
                last_origin: OWN,
                last_generation: 0,
            }, "ioasid::Space::setup"),
        })
        .pin_chain(move |space| {
            space.keep_out(pasids.as_ref(), capacity)?;
            let own = space.count_own(pasids.as_ref(), capacity);
            space.setup.lock().pasids = pasids;
            let root = SetState::new(Token::None, own, SetId::ROOT.generation());
            space.sets.insert(SetId::ROOT.number(), root, Gfp::Kernel)
        })
    }

    /// Excludes from the own space the ids that the kernel has already allocated.
    fn keep_out(&self, pasids: Option<&GlobalPasids>, capacity: u32) -> Result {
        let Some(pasids) = pasids else {
            return Ok(());
        };
        for id in (self.floor..capacity).filter(|&id| !pasids.holds(id)) {
            self.ids.insert(id, Gfp::Kernel, |_nobodys, _| ())?;
        }
        Ok(())
    }

    /// Returns the number of ids of the own space if its capacity is `capacity`, without those that
    /// the kernel has allocated.
    fn count_own(&self, pasids: Option<&GlobalPasids>, capacity: u32) -> u32 {
        match pasids {
            Some(pasids) => pasids.count(self.floor, capacity),
            None => capacity.saturating_sub(self.floor),
        }
    }

    /// Returns the number of ids of the own space, without those that the kernel has allocated.
    /// Sleeps.
    pub(crate) fn own_total(&self) -> u32 {
        let setup = self.setup.lock();
        self.count_own(setup.pasids.as_ref(), self.capacity())
    }

    /// Returns the end of the own space: all own ids are lower.
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
    pub fn state(&self, key: Key) -> Result<State> {
        self.with_id(key, |found| Ok(found.life.state()))
    }

    /// Returns the lowest id of the own space.
    pub fn floor(&self) -> u32 {
        self.floor
    }

    /// Returns the number of ids of the own space that are in use.
    pub fn own_ids(&self) -> u32 {
        self.own.outstanding()
    }

    /// Returns the number of ids whose allocator is gone.
    pub fn orphans(&self) -> u32 {
        self.orphans.load(Relaxed).max(0) as u32
    }

    /// Returns the listeners to events of ids.
    pub(crate) fn listeners(&self) -> &Listeners {
        &self.listeners
    }

    /// Returns the custom allocators, the active ones first, or `None` if there are none.
    pub(crate) fn allocators(&self) -> Option<Reader<'_, KVec<Source>>> {
        self.sources.read()
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
            pr_warn!("ids are still allocated, the first one is {}\n", id);
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
        f(&entry.look(key.only)?)
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
