// SPDX-License-Identifier: GPL-2.0

//! A space of ids, with everything that is in it.
//!
//! Calls that only look take no lock. Ids and sets are counted, so whoever has a reference can use
//! what it refers to while others come and go.

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

/// Memory for what spaces consist of.
#[derive(Clone)]
pub struct Memory {
    ids: Arc<id_table::Memory<Entry>>,
    sets: Arc<Slab<SetState>>,
}

impl Memory {
    /// Memory that shows up in `/proc/slabinfo` under three names. Sleeps.
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

    /// That of the system's space, for others beside it.
    #[cfg(CONFIG_KUNIT)]
    pub(crate) fn shared() -> Result<Self> {
        Ok(crate::abi::system::system().memory.clone())
    }
}

/// A space of ids: the system's, or a test's.
#[pin_data]
pub struct Space {
    memory: Memory,
    #[pin]
    ids: IdTable<Entry>,
    /// By number; [`SetId::ROOT`] stands for no set.
    #[pin]
    sets: IdMap<SetState>,
    /// Taken to change what sets call their ids.
    #[pin]
    names: SpinLockIrq<()>,
    #[pin]
    listeners: Listeners,
    #[pin]
    sources: Sources,
    own: Own,
    orphans: Atomic<i32>,
    /// What was taken from the root's account by [`reserve_capacity`](Self::reserve_capacity).
    reserved: Account,
    /// The lowest id of the own space.
    floor: u32,
    /// What the ids of the own space are below.
    capacity: Atomic<u32>,
    #[pin]
    setup: Mutex<Setup>,
}

/// What changes seldom, and by one at a time.
struct Setup {
    /// The ids of the own space, which the kernel then has not.
    pasids: Option<GlobalPasids>,
    /// Whether somebody has set the capacity.
    installed: bool,
    /// The newest kind of custom allocators.
    last_origin: Origin,
    /// The generation of the newest set.
    last_generation: u32,
}

impl Space {
    /// A space which hands out ids from `floor` to `capacity - 1`, and whatever custom allocators do.
    ///
    /// Of those only the ones that `pasids` holds, if it is given.
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
            space.setup.lock().pasids = pasids;
            let left = capacity.saturating_sub(floor);
            let root = SetState::new(Token::None, left, SetId::ROOT.generation());
            space.sets.insert(SetId::ROOT.number(), root, Gfp::Kernel)
        })
    }

    /// Takes what the kernel had handed out already out of the own space.
    fn keep_out(&self, pasids: Option<&GlobalPasids>, capacity: u32) -> Result {
        let Some(pasids) = pasids else {
            return Ok(());
        };
        for id in (self.floor..capacity).filter(|&id| !pasids.holds(id)) {
            self.ids.insert(id, Gfp::Kernel, |_nobodys, _| ())?;
        }
        Ok(())
    }

    /// How many ids there are at most: the own ones are below.
    pub fn capacity(&self) -> u32 {
        read_once(&self.capacity)
    }

    /// Lowers the number of ids, once, as long as none of them is promised or allocated. Sleeps.
    ///
    /// What lies above goes back to the kernel. While this goes on, all ids count as promised.
    ///
    /// # Errors
    ///
    /// `EBUSY` if this was done before, or some are in use; `EINVAL` if there would be none, or more than
    /// now: the others may be in use by the kernel.
    pub fn install_capacity(&self, total: u32) -> Result {
        let mut setup = self.setup.lock();
        if setup.installed {
            return Err(EBUSY);
        }
        let before = self.capacity();
        if total <= self.floor || total > before {
            return Err(EINVAL);
        }
        // An allocation takes from the account, then it looks at the capacity.
        self.with_set(SetId::ROOT, |root| root.account.take_all())?;
        self.capacity.store(total, Release);
        setup.installed = true;
        self.give_quota(SetId::ROOT, total - self.floor);
        if let Some(pasids) = &mut setup.pasids {
            pasids.give_back(total, before);
        }
        Ok(())
    }

    /// Promises `count` ids to the caller: they are in no set's quota.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if so many are not left.
    pub fn reserve_capacity(&self, count: u32) -> Result {
        self.with_set(SetId::ROOT, |root| root.account.take(count))
            .map_err(|_| ENOSPC)?;
        self.reserved
            .take(count)
            .inspect_err(|_| self.give_quota(SetId::ROOT, count))
    }

    /// Takes promises back that [`reserve_capacity`](Self::reserve_capacity) gave.
    ///
    /// # Errors
    ///
    /// `EINVAL` if that is more than was promised: then nothing changes.
    pub fn cancel_capacity(&self, count: u32) -> Result {
        let _open = self.reserved.give(count)?;
        self.give_quota(SetId::ROOT, count);
        Ok(())
    }

    /// The state of an id.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such id.
    pub fn state(&self, key: Key) -> Result<State> {
        self.with_id(key, |found| Ok(found.life.state()))
    }

    /// The lowest id of the own space.
    pub fn floor(&self) -> u32 {
        self.floor
    }

    /// How many ids of the own space are in use.
    pub fn own_ids(&self) -> u32 {
        self.own.outstanding()
    }

    /// How many ids there are whose allocator is gone.
    pub fn orphans(&self) -> u32 {
        self.orphans.load(Relaxed).max(0) as u32
    }

    /// Who is told what happens to ids.
    pub(crate) fn listeners(&self) -> &Listeners {
        &self.listeners
    }

    /// The custom allocators, the active ones first; `None` if there is none.
    pub(crate) fn allocators(&self) -> Option<Reader<'_, KVec<Source>>> {
        self.sources.read()
    }

    /// Whether there is no id, and no set.
    #[cfg(CONFIG_KUNIT)]
    pub(crate) fn is_unused(&self) -> bool {
        let mut sets = 0;
        self.for_each_set(|_, _| sets += 1);
        self.next_id(0, |_, _| ()).is_none() && sets == 0
    }

    /// Complains about what was forgotten, before the space goes.
    pub(crate) fn check_unused(&self) {
        if let Some(id) = self.next_id(0, |id, _| id) {
            pr_warn!("ids are still allocated, the first one is {}\n", id);
        }
    }

    /// Calls `f` with an id, as it is found.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such id; `EACCES` if it is not in the key's set.
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

    /// Calls `f` with what is known of a set.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such set.
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
