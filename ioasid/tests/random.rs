// SPDX-License-Identifier: GPL-2.0

//! Compares a space with a simple model by random calls.

mod model;

use kernel::{
    prelude::*,
    sync::Arc, //
};

use kernel_ext::testing::Random;

use model::{
    Model,
    IDS,
    OWN_FIRST,
    QUOTAS, //
};

use super::{
    any,
    fake_allocator::{
        kind,
        FakeAllocator,
        Fault,
        Stock,
        STOCK, //
    },
    space_from, //
};
use crate::{
    allocator::DEFAULT_ALLOCATOR,
    gfp::Gfp,
    id::{
        key::Key,
        range::IdRange,
        state::Right, //
    },
    set::{
        Quota,
        SetId,
        Token, //
    },
    space::Space, //
};

/// Fewer on the debug kernel, where a call takes longer.
const CALLS: u32 = if cfg!(CONFIG_KASAN) {
    50_000
} else {
    1_000_000
};
/// The number of calls between two complete comparisons.
const CHECK_EVERY: u32 = 997;

/// The number of different SPIDs.
const SPIDS: u32 = 16;
/// Two allocators each of two kinds. The kind is the key divided by two.
const ALLOCATORS: usize = 4;

/// The space, its environment, and the model of both.
struct Pair {
    space: Arc<Space>,
    /// The sets. The first entry stands for no set.
    sets: [SetId; 4],
    stocks: [Arc<Stock>; 2],
    model: Model,
    random: Random,
}

impl Pair {
    fn new() -> Result<Self> {
        let space = space_from(OWN_FIRST, IDS)?;
        let mut sets = [SetId::ROOT; 4];
        for (set, quota) in sets[1..].iter_mut().zip(QUOTAS) {
            *set = space
                .new_set(Token::None, Quota::Exactly(quota))?
                .into_handle();
        }
        Ok(Self {
            space,
            sets,
            stocks: [Stock::new(0)?, Stock::new(STOCK)?],
            model: Model::new()?,
            random: Random::new(0x1234_5678_9abc_def1),
        })
    }

    /// Returns a number from 0 to `end - 1`.
    fn below(&mut self, end: u32) -> u32 {
        self.random.below(end.into()) as u32
    }

    fn set(&mut self) -> usize {
        self.below(4) as usize
    }

    /// Returns no set in one of four calls.
    fn maybe_set(&mut self) -> Option<usize> {
        (self.below(4) != 0).then(|| self.set())
    }

    /// Returns the key of an id, in a set or in any set.
    fn key(&self, set: Option<usize>, id: u32) -> Key {
        Key::new(set.map(|set| self.sets[set]), id)
    }

    /// Returns an id, which usually exists.
    fn id(&mut self) -> u32 {
        let start = self.below(IDS);
        let known = (start..IDS).find(|&id| self.model.ids[id as usize].is_some());
        match self.below(8) {
            0 => start,
            _ => known.unwrap_or(start),
        }
    }

    fn range(&mut self) -> Result<IdRange> {
        let first = self.below(IDS);
        match self.below(4) {
            0 => IdRange::new(first, first + self.below(IDS - first)),
            _ => Ok(IdRange::ALL),
        }
    }

    /// Makes a random call, and compares the results.
    fn call(&mut self) -> Result {
        match self.below(500) {
            0..150 => self.alloc(),
            150..250 => {
                let (set, id) = (self.maybe_set(), self.id());
                let real = self.space.free(self.key(set, id));
                assert_eq!(real, self.model.free(set, id));
                Ok(())
            }
            250..300 => {
                let (set, id) = (self.maybe_set(), self.id());
                let real = self.space.get(self.key(set, id));
                let real = real.map(|reference| {
                    reference.into_id();
                });
                assert_eq!(real, self.model.get(set, id));
                Ok(())
            }
            300..350 => {
                let (set, id) = (self.maybe_set(), self.id());
                let real = self.space.put(self.key(set, id));
                assert_eq!(real, self.model.put(set, id));
                Ok(())
            }
            350..400 => {
                let (set, id) = (self.maybe_set(), self.id());
                let real = self.space.find(self.key(set, id), |data| data);
                assert_eq!(real, self.model.known(set, id).map(|known| known.data));
                Ok(())
            }
            400..450 => self.spid(),
            450..499 => {
                let id = self.id();
                if self.below(2) == 0 {
                    assert_eq!(self.space.bind(any(id)), self.model.bind(id));
                } else {
                    assert_eq!(self.space.unbind(any(id)), self.model.unbind(id));
                }
                Ok(())
            }
            _ => self.allocators(),
        }
    }

    fn alloc(&mut self) -> Result {
        let (set, range) = (self.set(), self.range()?);
        let data = self.random.below(1 << 32) as usize;
        let set_id = self.sets[set];
        let real = self
            .space
            .alloc_in(set_id, range, data, Gfp::Kernel, Right::Anyone);
        assert_eq!(real.map(|key| key.id), self.model.alloc(set, range, data));
        Ok(())
    }

    fn spid(&mut self) -> Result {
        let (id, spid) = (self.id(), self.below(SPIDS));
        match self.below(3) {
            0 => {
                let real = self.space.attach_spid(any(id), spid);
                assert_eq!(real, self.model.attach_spid(id, spid));
            }
            1 => {
                let expected = self.model.known(None, id).map(|_| ());
                assert_eq!(self.space.detach_spid(any(id)), expected);
                self.model.change(id, |id| id.spid = None);
            }
            _ => {
                let set = self.set();
                let real = self.space.by_spid(self.sets[set], spid);
                assert_eq!(real, self.model.by_spid(set, spid));
            }
        }
        Ok(())
    }

    fn allocators(&mut self) -> Result {
        if self.below(8) == 0 {
            // Otherwise the default allocator would never be empty, as the first allocator
            // requires.
            self.free_all();
        }
        let key = self.below(ALLOCATORS as u32) as usize;
        let stock = key / 2;
        if self.below(2) == 0 {
            let fake = FakeAllocator::new(&self.stocks[stock], Fault::None)?;
            let real = self.space.add_allocator(kind(stock), key, fake);
            assert_eq!(real, self.model.register(key));
            return Ok(());
        }
        let real = self
            .space
            .remove_allocator(key)
            .map(|gone| gone.last_of_kind);
        let last_of_kind = self.model.unregister(key);
        assert_eq!(real, last_of_kind);
        // The device of the allocator may forget its allocations.
        if last_of_kind == Ok(true) && self.below(2) == 0 {
            self.stocks[stock].reset();
            self.model.stocks[stock] = 0;
        }
        Ok(())
    }

    /// Compares the complete state.
    fn check(&self) {
        let (space, model) = (&self.space, &self.model);
        for id in 0..IDS {
            assert_eq!(space.state(any(id)), model.state(id));
            let real = space.with_id(any(id), |entry| Ok(entry.lifetime.references()));
            assert_eq!(real, model.known(None, id).map(|known| known.references));
        }
        for (set, &id) in self.sets.iter().enumerate() {
            let real = space.with_set(id, |set| Ok(set.account.taken()));
            let promised = if set == 0 { QUOTAS.iter().sum() } else { 0 };
            let used = model.count(|id| id.set == set);
            assert_eq!(real, Ok(used + promised));
        }
        assert_eq!(
            space.own_ids(),
            model.count(|id| id.origin == DEFAULT_ALLOCATOR)
        );
        assert_eq!(space.orphans(), model.orphans());
        for (real, model) in self.stocks.iter().zip(model.stocks) {
            assert_eq!(real.taken(), model);
        }
    }

    /// Frees all ids and drops all references.
    fn free_all(&mut self) {
        for id in 0..IDS {
            assert_eq!(self.space.free(any(id)), self.model.free(None, id));
            while self.model.known(None, id).is_ok() {
                let real = self.space.put(any(id));
                assert_eq!(real, self.model.put(None, id));
            }
        }
    }

    /// Checks that nothing is left when everything has been freed.
    fn end(&mut self) {
        self.free_all();
        for &set in &self.sets[1..] {
            assert_eq!(self.space.free_set(set), Ok(()));
        }
        assert!(self.space.is_unused());
    }
}

#[kunit_tests(ioasid_random)]
mod tests {
    use super::*;

    #[test]
    fn random_calls_agree_with_the_model() -> Result {
        let mut pair = Pair::new()?;
        let mut seen = [0; 3];
        for number in 0..CALLS {
            pair.call()?;
            if number % CHECK_EVERY == 0 {
                pair.check();
                seen[0] = seen[0].max(pair.model.orphans());
                seen[1] = seen[1].max(pair.space.own_ids());
                seen[2] = seen[2].max(pair.model.count(|id| id.freed));
            }
        }
        pair.check();
        pr_info!(
            "{} random calls; up to {} orphans, {} own ids, {} freed that are held\n",
            CALLS,
            seen[0],
            seen[1],
            seen[2]
        );
        assert!(seen.iter().all(|&most| most > 0));
        pair.end();
        Ok(())
    }
}
