// SPDX-License-Identifier: GPL-2.0

//! A table of ids, each with a value at a fixed address.
//!
//! The values are stored in the leaves of a tree. So allocating an id doesn't allocate an object,
//! and a lookup walks down the tree without a lock. The cost is that a reader may find the next
//! value of an id in the place of the value that it looked for. So values consist of atomics and
//! have to tell which object they belong to.

mod memory;
mod node;
mod tree;

use kernel::{
    prelude::*,
    sync::{
        rcu,
        Arc,
        LockClassKey,
        SpinLockIrq, //
    },
};

use crate::gfp::Gfp;

pub use memory::Memory;

use tree::{
    Change,
    Tree, //
};

/// A table of 32-bit ids, which are free or taken, and a value for each.
///
/// Lookups take no lock. Changes take a spinlock with interrupts disabled, so all methods may be
/// called from any context. Memory is allocated without the lock, with the flags that the caller
/// passes. The time of a call depends only on the number of bits of the ids.
#[pin_data]
pub struct IdTable<T> {
    tree: Tree<T>,
    /// Held while the tree is changed.
    #[pin]
    changes: SpinLockIrq<Changes>,
}

/// State that is kept from one change of the tree to the next.
struct Changes {
    /// The first id of the leaf that became empty last. That leaf is kept, so that allocating and
    /// freeing the same id repeatedly doesn't allocate memory each time.
    emptied: Option<u32>,
    /// The total number of ids taken so far, modulo 2^32.
    taken: u32,
}

impl<T: Default + Send + Sync + 'static> IdTable<T> {
    /// Returns a table with all ids free. `name` is the name of its lock for lockdep.
    pub fn new(
        memory: Arc<Memory<T>>,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            tree: Tree::new(memory),
            changes <- SpinLockIrq::new(Changes { emptied: None, taken: 0 }, name, key),
        })
    }

    /// Takes the lowest free id between `first` and `last`. Calls `fill` with its value and the
    /// number of ids that were taken before, modulo 2^32. Returns the id, and the result of `fill`.
    ///
    /// Readers may see the value while `fill` runs. No id is taken or freed in the meantime: `fill`
    /// must not change the table.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if no id is free; `ENOMEM`.
    pub fn alloc<R>(
        &self,
        first: u32,
        last: u32,
        gfp: Gfp,
        fill: impl FnOnce(&T, u32) -> R,
    ) -> Result<(u32, R)> {
        self.take(gfp, fill, |change| {
            let id = change.view().first_free(first);
            id.filter(|&id| id <= last).ok_or(ENOSPC)
        })
    }

    /// Takes the id `id` and calls `fill` with its value, as [`alloc`](Self::alloc) does.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the id is taken; `ENOMEM`.
    pub fn insert<R>(&self, id: u32, gfp: Gfp, fill: impl FnOnce(&T, u32) -> R) -> Result<R> {
        let free = |change: &Change<'_, T>| change.view().first_free(id) == Some(id);
        let (_, filled) = self.take(gfp, fill, |change| free(change).then_some(id).ok_or(EBUSY))?;
        Ok(filled)
    }

    /// Takes the id that `choose` returns.
    fn take<R>(
        &self,
        gfp: Gfp,
        fill: impl FnOnce(&T, u32) -> R,
        choose: impl Fn(&Change<'_, T>) -> Result<u32>,
    ) -> Result<(u32, R)> {
        let mut spare = None;
        // The id that nodes were added for.
        let mut prepared = None;
        loop {
            let mut locked = self.changes.lock();
            // SAFETY: The lock is held as long as `change` is used.
            let change = unsafe { Change::new(&self.tree) };
            let chosen = choose(&change);
            if let Some(other) = prepared.filter(|&other| chosen != Ok(other)) {
                // Other threads changed the tree while memory was allocated, and that changed the
                // choice.
                change.prune(other);
            }
            let id = chosen?;
            let missing = match change.take(id, &mut spare) {
                Ok(value) => {
                    let before = locked.taken;
                    locked.taken = before.wrapping_add(1);
                    return Ok((id, fill(value, before)));
                }
                Err(shift) => shift,
            };
            prepared = Some(id);
            drop(locked);
            spare = Some(
                self.tree
                    .memory
                    .alloc(missing, gfp)
                    .inspect_err(|_| self.prune(id))?,
            );
        }
    }

    /// Frees the nodes that were added for `id`, which could not be taken.
    fn prune(&self, id: u32) {
        let _locked = self.changes.lock();
        // SAFETY: The lock is held as long as this is used.
        unsafe { Change::new(&self.tree) }.prune(id);
    }

    /// Frees the id `id`, which can be taken again immediately. Does nothing if it is free.
    pub fn remove(&self, id: u32) {
        let mut locked = self.changes.lock();
        // SAFETY: The lock is held as long as `change` is used.
        let change = unsafe { Change::new(&self.tree) };
        change.release(id, &mut locked.emptied);
    }

    /// Returns the value of the id `id`, if the tree has a place for it. The id may be free, or may
    /// never have been taken.
    #[inline]
    pub fn get<'g>(&'g self, id: u32, _guard: &'g rcu::Guard) -> Option<&'g T> {
        // SAFETY: The guard proves that RCU is locked.
        unsafe { self.tree.view() }.slot(id)
    }

    /// Returns the lowest id that is taken and at least `from`, and its value.
    pub fn next<'g>(&'g self, from: u32, _guard: &'g rcu::Guard) -> Option<(u32, &'g T)> {
        // SAFETY: The guard proves that RCU is locked.
        unsafe { self.tree.view() }.first_taken(from)
    }
}

#[kunit_tests(kernel_ext_id_table)]
mod tests {
    use super::*;
    use crate::read_once::{
        read_once,
        write_once, //
    };
    use kernel::{
        static_lock_class,
        sync::atomic::Atomic, //
    };

    struct Value(Atomic<u32>);

    impl Default for Value {
        fn default() -> Self {
            Self(Atomic::new(0))
        }
    }

    type Table = Pin<KBox<IdTable<Value>>>;

    fn table() -> Result<Table> {
        let memory = Memory::new(c"kernel_ext_test_leaf", c"kernel_ext_test_node")?;
        let table = IdTable::new(memory, c"kernel_ext::test", static_lock_class!());
        KBox::pin_init(table, GFP_KERNEL)
    }

    fn alloc(table: &Table, first: u32, last: u32) -> Result<u32> {
        let (id, ()) = table.alloc(first, last, Gfp::Kernel, |_, _| ())?;
        Ok(id)
    }

    /// Takes an id and stores it in its value.
    fn insert(table: &Table, id: u32) -> Result {
        table.insert(id, Gfp::Atomic, |value, _| write_once(&value.0, id))
    }

    fn value(table: &Table, id: u32) -> Option<u32> {
        Some(read_once(&table.get(id, &rcu::Guard::new())?.0))
    }

    fn next(table: &Table, from: u32) -> Option<u32> {
        Some(table.next(from, &rcu::Guard::new())?.0)
    }

    #[test]
    fn lowest_of_the_range_first() -> Result {
        let table = table()?;
        for expected in 60..70 {
            assert_eq!(alloc(&table, 60, 69), Ok(expected));
        }
        assert_eq!(alloc(&table, 60, 69), Err(ENOSPC));
        table.remove(66);
        table.remove(63);
        assert_eq!(alloc(&table, 64, 69), Ok(66));
        assert_eq!(alloc(&table, 0, 69), Ok(0));
        assert_eq!(alloc(&table, 60, 69), Ok(63));
        Ok(())
    }

    #[test]
    fn taken_once() -> Result {
        let table = table()?;
        assert_eq!(insert(&table, 70_000), Ok(()));
        assert_eq!(insert(&table, 70_000), Err(EBUSY));
        table.remove(70_000);
        assert_eq!(insert(&table, 70_000), Ok(()));
        Ok(())
    }

    #[test]
    fn what_is_free_stays_free() -> Result {
        let table = table()?;
        // Without a tree; with a tree that is too low, and with nodes on part of the path; in a
        // leaf.
        table.remove(5);
        insert(&table, 0)?;
        for free in [63, 64, 1 << 20, u32::MAX] {
            table.remove(free);
        }
        insert(&table, 1 << 20)?;
        for free in [1, 64, 4096, 1 << 18, (1 << 20) + 64, u32::MAX] {
            table.remove(free);
        }
        assert_eq!(next(&table, 0), Some(0));
        assert_eq!(next(&table, 1), Some(1 << 20));
        for expected in 1..200 {
            assert_eq!(alloc(&table, 0, u32::MAX), Ok(expected));
        }
        Ok(())
    }

    #[test]
    fn no_two_have_the_same_count() -> Result {
        let table = table()?;
        let mut counts = [0; 4];
        for (round, count) in counts.iter_mut().enumerate() {
            let (id, before) = table.alloc(9, 9, Gfp::Kernel, |_, before| before)?;
            // Use a new leaf in each round.
            table.remove(id);
            insert(&table, 5000)?;
            table.remove(5000);
            assert_eq!(value(&table, 9), None);
            *count = before + round as u32;
        }
        assert_eq!(counts, [0, 3, 6, 9]);
        Ok(())
    }

    #[test]
    fn both_ends() -> Result {
        let table = table()?;
        assert_eq!(alloc(&table, u32::MAX, u32::MAX), Ok(u32::MAX));
        assert_eq!(alloc(&table, u32::MAX, u32::MAX), Err(ENOSPC));
        assert_eq!(alloc(&table, u32::MAX - 1, u32::MAX), Ok(u32::MAX - 1));
        assert_eq!(alloc(&table, u32::MAX - 1, u32::MAX), Err(ENOSPC));
        assert_eq!(alloc(&table, 0, u32::MAX), Ok(0));
        assert_eq!(next(&table, 1), Some(u32::MAX - 1));
        assert_eq!(next(&table, u32::MAX), Some(u32::MAX));
        table.remove(u32::MAX);
        assert_eq!(next(&table, u32::MAX), None);
        Ok(())
    }

    #[test]
    fn values_stay_when_the_tree_grows() -> Result {
        let table = table()?;
        // Each id needs one more level than the previous one.
        let ids = [0, 64, 4096, 1 << 18, 1 << 24, 1 << 30, u32::MAX];
        for (count, &id) in ids.iter().enumerate() {
            assert_eq!(insert(&table, id), Ok(()));
            for &id in &ids[..=count] {
                assert_eq!(value(&table, id), Some(id));
            }
        }
        let mut from = 0;
        for &id in &ids {
            assert_eq!(next(&table, from), Some(id));
            from = id.saturating_add(1);
        }
        assert_eq!((value(&table, 63), value(&table, 128)), (Some(0), None));
        Ok(())
    }

    #[test]
    fn what_is_full_is_passed() -> Result {
        let table = table()?;
        // Fill a tree of two levels, which then becomes the first child of a higher root.
        for expected in 0..4096 {
            assert_eq!(alloc(&table, 0, u32::MAX), Ok(expected));
        }
        assert_eq!(alloc(&table, 0, 4095), Err(ENOSPC));
        assert_eq!(alloc(&table, 7, u32::MAX), Ok(4096));
        for id in [4095, 2048, 64, 63, 0] {
            table.remove(id);
            assert_eq!(alloc(&table, 0, u32::MAX), Ok(id));
        }
        table.remove(100);
        assert_eq!(alloc(&table, 101, u32::MAX), Ok(4097));
        Ok(())
    }

    #[test]
    fn empty_leaves_are_given_back() -> Result {
        let table = table()?;
        for id in [0, 1 << 20, 2 << 20] {
            insert(&table, id)?;
        }
        table.remove(1 << 20);
        // The leaf that became empty last is kept.
        assert_eq!(value(&table, 1 << 20), Some(1 << 20));
        table.remove(2 << 20);
        assert_eq!(value(&table, 1 << 20), None);
        assert_eq!(value(&table, 2 << 20), Some(2 << 20));
        // It is also kept if it has ids again.
        insert(&table, (2 << 20) + 1)?;
        table.remove(0);
        assert_eq!(value(&table, 2 << 20), Some(2 << 20));
        assert_eq!(next(&table, 0), Some((2 << 20) + 1));
        Ok(())
    }

    #[test]
    fn as_a_plain_list_does_it() -> Result {
        /// The first ids of three ranges in the corners of a tree. Each range has `EACH` ids.
        const CORNERS: [u32; 3] = [0, (1 << 18) - 100, u32::MAX - 199];
        const EACH: u32 = 200;
        let table = table()?;
        let mut taken = [[false; EACH as usize]; CORNERS.len()];
        let mut state = 1u32;
        let mut random = |end: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % end
        };
        for round in 0..100_000 {
            let (corner, at) = (random(3) as usize, random(EACH));
            let (base, taken) = (CORNERS[corner], &mut taken[corner]);
            let (last, has) = (base + (EACH - 1), taken[at as usize]);
            // The table fills and empties in turns.
            let frees = if round / 4_000 % 2 == 0 { 20 } else { 80 };
            if random(100) < frees {
                if has {
                    table.remove(base + at);
                    taken[at as usize] = false;
                }
            } else if random(2) == 0 {
                let expected = if has { Err(EBUSY) } else { Ok(()) };
                assert_eq!(insert(&table, base + at), expected);
                taken[at as usize] = true;
            } else {
                let free = (at..EACH).find(|&at| !taken[at as usize]);
                let expected = free.map(|at| base + at).ok_or(ENOSPC);
                assert_eq!(alloc(&table, base + at, last), expected);
                free.inspect(|&at| taken[at as usize] = true);
            }
            let first = (at..EACH)
                .find(|&at| taken[at as usize])
                .map(|at| base + at);
            let found = next(&table, base + at);
            assert_eq!(found.filter(|&id| id <= last), first);
        }
        Ok(())
    }
}
