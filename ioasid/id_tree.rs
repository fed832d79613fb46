// SPDX-License-Identifier: GPL-2.0

//! A table of ids, each with a value at a fixed address.
//!
//! The values are stored in the leaves of a tree. So allocating an id doesn't allocate an object,
//! and a lookup walks down the tree without a lock. The cost is that a reader may find the next
//! value of an id in the place of the value that it looked for. So values consist of atomics and
//! record which object they belong to.

#[allow(unsafe_code)]
mod abi;
mod node;
mod search;
#[cfg(CONFIG_KUNIT)]
mod tests;

use kernel::{
    prelude::*,
    sync::{
        rcu,
        Arc,
        LockClassKey, //
    }, //
};

use crate::gfp::Gfp;

pub(crate) use abi::NodeCaches;
use abi::{
    Change,
    NewNode,
    Tree, //
};

/// A table of 32-bit ids, which are free or taken, and a value for each.
///
/// Lookups take no lock. Changes take a spinlock with interrupts disabled, so all methods may be
/// called from any context. Memory is allocated without the lock, with the flags that the caller
/// passes. The time of a call depends only on the number of bits of the ids.
#[pin_data]
pub(crate) struct IdTree<T> {
    #[pin]
    tree: Tree<T>,
}

impl<T: Default + Send + Sync + 'static> IdTree<T> {
    /// Creates a table with all ids free. `name` is the name of its lock for lockdep.
    pub(crate) fn new(
        caches: Arc<NodeCaches<T>>,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            tree <- Tree::new(caches, name, key),
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
    pub(crate) fn alloc<R>(
        &self,
        first: u32,
        last: u32,
        gfp: Gfp,
        fill: impl FnOnce(&T, u32) -> R,
    ) -> Result<(u32, R)> {
        let choose = |change: &Change<'_, T>| {
            let id = change.view().first_free(first);
            id.filter(|&id| id <= last).ok_or(ENOSPC)
        };
        self.take(fill, choose, |shift| self.tree.new_node(shift, gfp))
    }

    /// Takes the id `id` and calls `fill` with its value, as [`alloc`](Self::alloc) does.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the id is taken; `ENOMEM`.
    pub(crate) fn insert<R>(
        &self,
        id: u32,
        gfp: Gfp,
        fill: impl FnOnce(&T, u32) -> R,
    ) -> Result<R> {
        let free = |change: &Change<'_, T>| change.view().first_free(id) == Some(id);
        let choose = |change: &Change<'_, T>| free(change).then_some(id).ok_or(EBUSY);
        let (_, filled) = self.take(fill, choose, |shift| self.tree.new_node(shift, gfp))?;
        Ok(filled)
    }

    /// Takes the id that `choose` returns. `new_node` allocates a node with a shift.
    fn take<'t, R>(
        &'t self,
        fill: impl FnOnce(&T, u32) -> R,
        choose: impl Fn(&Change<'_, T>) -> Result<u32>,
        mut new_node: impl FnMut(u32) -> Result<NewNode<'t, T>>,
    ) -> Result<(u32, R)> {
        let mut spare = None;
        // The id that nodes were added for.
        let mut prepared = None;
        loop {
            let mut change = self.tree.lock();
            let chosen = choose(&change);
            if let Some(other) = prepared.filter(|&other| chosen != Ok(other)) {
                // Other threads changed the tree while memory was allocated, and that changed the
                // choice.
                change.prune(other);
            }
            let id = chosen?;
            let missing = match change.take(id, &mut spare) {
                Ok((value, before)) => return Ok((id, fill(value, before))),
                Err(shift) => shift,
            };
            prepared = Some(id);
            drop(change);
            spare = Some(new_node(missing).inspect_err(|_| self.tree.lock().prune(id))?);
        }
    }

    /// Frees the id `id`, which can be taken again immediately. Does nothing if it is free.
    pub(crate) fn remove(&self, id: u32) {
        self.tree.lock().release(id);
    }

    /// Returns the value of the id `id`, if the tree has a place for it. The id may be free, or may
    /// never have been taken.
    #[inline]
    pub(crate) fn get<'g>(&'g self, id: u32, guard: &'g rcu::Guard) -> Option<&'g T> {
        self.tree.read(guard).slot(id)
    }

    /// Returns the lowest id that is taken and at least `from`, and its value.
    pub(crate) fn next<'g>(&'g self, from: u32, guard: &'g rcu::Guard) -> Option<(u32, &'g T)> {
        self.tree.read(guard).first_taken(from)
    }
}
