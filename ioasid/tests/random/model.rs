// SPDX-License-Identifier: GPL-2.0

//! The expected behaviour of a space, implemented with linear searches.

use kernel::prelude::*;

use crate::{
    allocator::{
        Origin,
        DEFAULT_ALLOCATOR, //
    },
    id::{
        range::IdRange,
        state::IdState, //
    },
    set::account::edquot,
    tests::fake_allocator::STOCK, //
};

/// All ids are below this number. Those of the two stocks come first, then the own ids.
pub(super) const IDS: u32 = 4 * STOCK;
pub(super) const OWN_FIRST: u32 = 2 * STOCK;
/// The quotas of the sets. There are also ids in no set.
pub(super) const QUOTAS: [u32; 3] = [5, 30, 70];

/// The data of an id.
#[derive(Clone, Copy)]
pub(super) struct Id {
    pub(super) set: usize,
    pub(super) origin: Origin,
    pub(super) references: u32,
    pub(super) freed: bool,
    pub(super) bound: bool,
    pub(super) spid: Option<u32>,
    pub(super) data: usize,
}

/// A registered allocator.
#[derive(Clone, Copy)]
struct Registered {
    key: usize,
    origin: Origin,
}

/// The model: all data of a space, in lists that are searched linearly.
pub(super) struct Model {
    pub(super) ids: KVec<Option<Id>>,
    /// The allocated ids of each stock, as bits.
    pub(super) stocks: [u64; 2],
    /// Ordered by kind and then by registration. Kinds are in the order of their origins.
    registered: KVec<Registered>,
    last_origin: Origin,
}

impl Model {
    /// Creates the model of a space without ids and allocators.
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            ids: KVec::from_elem(None, IDS as usize, GFP_KERNEL)?,
            stocks: [0; 2],
            registered: KVec::new(),
            last_origin: DEFAULT_ALLOCATOR,
        })
    }

    pub(super) fn count(&self, which: impl Fn(&Id) -> bool) -> u32 {
        self.ids.iter().flatten().filter(|id| which(id)).count() as u32
    }

    pub(super) fn known(&self, set: Option<usize>, id: u32) -> Result<Id> {
        let known = self.ids[id as usize].ok_or(ENOENT)?;
        if set.is_some_and(|set| set != known.set) {
            return Err(EACCES);
        }
        Ok(known)
    }

    fn alive(&self, origin: Origin) -> bool {
        origin == DEFAULT_ALLOCATOR || self.registered.iter().any(|r| r.origin == origin)
    }

    pub(super) fn orphans(&self) -> u32 {
        self.count(|id| !self.alive(id.origin))
    }

    pub(super) fn alloc(&mut self, set: usize, range: IdRange, data: usize) -> Result<u32> {
        let quota = match set {
            0 => IDS - OWN_FIRST - QUOTAS.iter().sum::<u32>(),
            set => QUOTAS[set - 1],
        };
        if self.count(|id| id.set == set) >= quota {
            return Err(edquot());
        }
        let (id, origin) = match self.registered.first() {
            Some(&active) => (self.take_from_stock(active.key / 2, range)?, active.origin),
            None => {
                let free = |&id: &u32| range.contains(id) && self.ids[id as usize].is_none();
                (
                    (OWN_FIRST..IDS).find(free).ok_or(ENOSPC)?,
                    DEFAULT_ALLOCATOR,
                )
            }
        };
        self.ids[id as usize] = Some(Id {
            set,
            origin,
            references: 1,
            freed: false,
            bound: false,
            spid: None,
            data,
        });
        Ok(id)
    }

    fn take_from_stock(&mut self, stock: usize, range: IdRange) -> Result<u32> {
        let first = stock as u32 * STOCK;
        let free = |&bit: &u32| range.contains(first + bit) && self.stocks[stock] & 1 << bit == 0;
        let bit = (0..STOCK).find(free).ok_or(ENOSPC)?;
        if self.ids[(first + bit) as usize].is_some() {
            // An orphan has the number, which the stock considers free.
            return Err(EBUSY);
        }
        self.stocks[stock] |= 1 << bit;
        Ok(first + bit)
    }

    fn drop_reference(&mut self, id: u32) -> bool {
        let Some(known) = &mut self.ids[id as usize] else {
            return false;
        };
        known.references -= 1;
        if known.references != 0 {
            return false;
        }
        let origin = known.origin;
        self.ids[id as usize] = None;
        if origin != DEFAULT_ALLOCATOR && self.alive(origin) {
            self.stocks[(id / STOCK) as usize] &= !(1 << (id % STOCK));
        }
        true
    }

    pub(super) fn free(&mut self, set: Option<usize>, id: u32) -> Result {
        let first = !self.known(set, id)?.freed;
        if let (true, Some(known)) = (first, &mut self.ids[id as usize]) {
            known.freed = true;
            self.drop_reference(id);
        }
        Ok(())
    }

    pub(super) fn put(&mut self, set: Option<usize>, id: u32) -> Result<bool> {
        self.known(set, id)?;
        Ok(self.drop_reference(id))
    }

    pub(super) fn get(&mut self, set: Option<usize>, id: u32) -> Result {
        if self.known(set, id)?.freed {
            return Err(EBUSY);
        }
        self.change(id, |id| id.references += 1);
        Ok(())
    }

    pub(super) fn change(&mut self, id: u32, f: impl FnOnce(&mut Id)) {
        if let Some(known) = &mut self.ids[id as usize] {
            f(known);
        }
    }

    pub(super) fn attach_spid(&mut self, id: u32, spid: u32) -> Result {
        let known = self.known(None, id)?;
        if known.freed || known.spid.is_some() {
            return Err(EBUSY);
        }
        if self.by_spid(known.set, spid).is_ok() {
            return Err(EINVAL);
        }
        self.change(id, |id| id.spid = Some(spid));
        Ok(())
    }

    pub(super) fn by_spid(&self, set: usize, spid: u32) -> Result<u32> {
        let named = |id: &Option<Id>| id.is_some_and(|id| id.set == set && id.spid == Some(spid));
        let id = self.ids.iter().position(named).ok_or(ENOENT)?;
        Ok(id as u32)
    }

    pub(super) fn bind(&mut self, id: u32) -> Result {
        let known = self.known(None, id)?;
        if known.bound || known.freed {
            return Err(EBUSY);
        }
        self.change(id, |id| id.bound = true);
        Ok(())
    }

    pub(super) fn unbind(&mut self, id: u32) -> Result {
        if !self.known(None, id)?.bound {
            return Err(EINVAL);
        }
        self.change(id, |id| id.bound = false);
        Ok(())
    }

    pub(super) fn state(&self, id: u32) -> Result<IdState> {
        Ok(match self.known(None, id)? {
            Id { freed: true, .. } => IdState::FreePending,
            Id { bound: true, .. } => IdState::Active,
            _ => IdState::Idle,
        })
    }

    pub(super) fn register(&mut self, key: usize) -> Result {
        let first = self.registered.is_empty();
        if first && self.count(|id| id.origin == DEFAULT_ALLOCATOR) != 0 {
            return Err(EAGAIN);
        }
        if self.registered.iter().any(|r| r.key == key) {
            return Err(EEXIST);
        }
        self.last_origin += 1;
        let kin = |r: &Registered| r.key / 2 == key / 2;
        let (at, origin) = match self.registered.iter().rposition(kin) {
            Some(last) => (last + 1, self.registered[last].origin),
            None => (self.registered.len(), self.last_origin),
        };
        self.registered.reserve(1, GFP_KERNEL)?;
        let inserted = self
            .registered
            .insert_within_capacity(at, Registered { key, origin });
        inserted.map_err(|_| ENOMEM)
    }

    /// Returns whether the allocator was the last one of its kind.
    pub(super) fn unregister(&mut self, key: usize) -> Result<bool> {
        let at = self.registered.iter().position(|r| r.key == key);
        let gone = self
            .registered
            .remove(at.ok_or(ENOENT)?)
            .map_err(|_| ENOENT)?;
        Ok(!self.alive(gone.origin))
    }
}
