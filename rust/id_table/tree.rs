// SPDX-License-Identifier: GPL-2.0

//! The tree of an [`IdTable`](super::IdTable), with 64 ids in a leaf and 64 children in a node.
//!
//! Every node stores which of its children are full, so one walk down the tree finds the lowest
//! free id, whatever is taken. Nodes without children are freed.

use core::ptr;

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Release, //
        },
        Arc, //
    },
};

use super::{
    memory::{
        Fresh,
        Memory, //
    },
    node::{
        shift_for,
        Below,
        Head,
        Node,
        BITS, //
    },
};

/// The tree of a table.
///
/// # Invariants
///
/// The root is null or a node from the memory. So are all children. A child is one level below its
/// parent.
pub(super) struct Tree<T> {
    root: Atomic<*mut Head>,
    pub(super) memory: Arc<Memory<T>>,
}

impl<T> Tree<T> {
    /// Returns a tree without nodes.
    pub(super) fn new(memory: Arc<Memory<T>>) -> Self {
        // INVARIANT: The tree has no node.
        Self {
            root: Atomic::new(ptr::null_mut()),
            memory,
        }
    }

    /// Returns a view of the current tree.
    ///
    /// # Safety
    ///
    /// The caller holds the RCU lock or the lock of the table for `'t`.
    #[inline]
    pub(super) unsafe fn view<'t>(&'t self) -> View<'t, T> {
        // INVARIANT: By this function's contract.
        View(self)
    }

    /// Frees a node and all nodes below it.
    ///
    /// # Safety
    ///
    /// The node is from this tree, and nothing else uses it.
    unsafe fn free_below(&self, node: Node<'_, T>) {
        if let Below::Nodes(children) = node.below() {
            for child in children.iter() {
                // SAFETY: By this function's contract. The recursion is at most six levels deep.
                unsafe { self.free_below(child) };
            }
        }
        // SAFETY: As above.
        unsafe { self.memory.free(node) };
    }
}

impl<T> Drop for Tree<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant these are nodes. Nothing uses the tree any more.
        unsafe {
            if let Some(root) = Node::at(&self.root) {
                self.free_below(root);
            }
        }
    }
}

/// A tree, as seen while the caller holds the RCU lock or the lock of the table.
///
/// # Invariants
///
/// One of the two locks is held for `'t`.
pub(super) struct View<'t, T>(&'t Tree<T>);

impl<'t, T> View<'t, T> {
    #[inline]
    fn root(&self) -> Option<Node<'t, T>> {
        // SAFETY: By the invariants of both types.
        unsafe { Node::at(&self.0.root) }
    }

    /// Returns the root, if it covers `id`.
    #[inline]
    fn root_of(&self, id: u32) -> Option<Node<'t, T>> {
        self.root().filter(|root| root.covers(id))
    }

    /// Returns the value of the id `id`, whether it is taken or free.
    #[inline]
    pub(super) fn slot(&self, id: u32) -> Option<&'t T> {
        let mut node = self.root_of(id)?;
        loop {
            node = match node.below() {
                Below::Nodes(children) => children.get(node.index(id))?,
                Below::Slots(slots) => return Some(&slots[node.index(id)]),
            }
        }
    }

    /// Returns the lowest node on the path to `id`.
    fn lowest(&self, id: u32) -> Option<Node<'t, T>> {
        let mut node = self.root_of(id)?;
        while let Some(child) = node.child(id) {
            node = child;
        }
        Some(node)
    }

    /// Returns the lowest free id that is at least `first`.
    ///
    /// If a node has no free id, the search restarts at the root for the ids after the node. That
    /// happens at most once for each level, because no other node that it visits is full.
    pub(super) fn first_free(&self, mut first: u32) -> Option<u32> {
        'root: while let Some(mut node) = self.root_of(first) {
            loop {
                let Some(index) = node.first_free(node.index(first)) else {
                    first = after(first, node.shift() + BITS)?;
                    continue 'root;
                };
                if index != node.index(first) {
                    first = node.start(first, index)?;
                }
                match node.child(first) {
                    Some(child) => node = child,
                    None => return Some(first),
                }
            }
        }
        Some(first)
    }

    /// Returns the lowest taken id that is at least `first`, and its value.
    pub(super) fn first_taken(&self, mut first: u32) -> Option<(u32, &'t T)> {
        loop {
            let node = self.lowest(first)?;
            let Below::Slots(slots) = node.below() else {
                first = after(first, node.shift())?;
                continue;
            };
            match node.first_full(node.index(first)) {
                Some(index) => return Some((node.start(first, index)?, &slots[index])),
                None => first = after(first, BITS)?,
            }
        }
    }
}

/// Returns the lowest id above `id` that differs from it in the bits above the lowest `bits` bits.
fn after(id: u32, bits: u32) -> Option<u32> {
    u32::try_from(((u64::from(id) >> bits) + 1) << bits).ok()
}

/// A tree that can be changed, because the caller holds the lock of the table.
pub(super) struct Change<'t, T>(View<'t, T>);

impl<'t, T> Change<'t, T> {
    /// Returns the current tree.
    ///
    /// # Safety
    ///
    /// The caller holds the lock of the table for `'t`.
    pub(super) unsafe fn new(tree: &'t Tree<T>) -> Self {
        // SAFETY: By this function's contract.
        Self(unsafe { tree.view() })
    }

    /// Returns the tree as readers see it.
    pub(super) fn view(&self) -> &View<'t, T> {
        &self.0
    }

    fn tree(&self) -> &'t Tree<T> {
        self.0 .0
    }

    /// Takes `id`, which is free.
    ///
    /// # Errors
    ///
    /// The shift of a missing node.
    pub(super) fn take(&self, id: u32, spare: &mut Option<Fresh<'t, T>>) -> Result<&'t T, u32> {
        let mut node = self.grow(id, spare)?;
        loop {
            match node.below() {
                Below::Slots(slots) => {
                    node.take(id);
                    return Ok(&slots[node.index(id)]);
                }
                Below::Nodes(children) => {
                    node = match children.get(node.index(id)) {
                        Some(child) => child,
                        None => {
                            let child = claim(spare, node.shift() - BITS)?;
                            // SAFETY: The child belongs to the level below.
                            unsafe { node.adopt(child, id) };
                            child
                        }
                    }
                }
            }
        }
    }

    /// Adds nodes above the root until it covers `id`.
    fn grow(&self, id: u32, spare: &mut Option<Fresh<'t, T>>) -> Result<Node<'t, T>, u32> {
        loop {
            let root = self.view().root();
            let shift = match root {
                Some(root) if root.covers(id) => return Ok(root),
                Some(root) => root.shift() + BITS,
                None => shift_for(id),
            };
            let above = claim(spare, shift)?;
            if let Some(root) = root {
                // SAFETY: The new node belongs to the level above. The root contains the id 0.
                unsafe { above.adopt(root, 0) };
            }
            // INVARIANT: This is a node from the memory, and so are the nodes below it.
            self.tree().root.store(above.as_ptr().as_ptr(), Release);
        }
    }

    /// Frees `id`, if it is taken. If that makes its leaf empty, the leaf's first id replaces the
    /// one in `emptied`. The leaf that was in `emptied` is freed, unless it has ids again.
    pub(super) fn release(&self, id: u32, emptied: &mut Option<u32>) {
        let Some(leaf) = self.view().lowest(id).filter(|node| node.has_taken(id)) else {
            return;
        };
        leaf.release(id);
        if leaf.is_empty() {
            let before = core::mem::replace(emptied, leaf.start(id, 0));
            if let Some(other) = before.filter(|_| before != *emptied) {
                self.prune(other);
            }
        }
    }

    /// Frees the nodes on the path to `id` that have no children, except the root.
    pub(super) fn prune(&self, id: u32) {
        let mut lowest = self.view().lowest(id);
        while let Some(node) = lowest.filter(|node| node.is_empty()) {
            let Some(parent) = node.parent() else {
                return;
            };
            parent.abandon(id);
            // SAFETY: The node is from the memory, and was just removed from the tree.
            unsafe { self.tree().memory.free_later(node) };
            lowest = Some(parent);
        }
    }
}

/// Takes the spare node for a tree, if it has this shift.
///
/// # Errors
///
/// The shift, if there is no such node.
fn claim<'t, T>(spare: &mut Option<Fresh<'t, T>>, shift: u32) -> Result<Node<'t, T>, u32> {
    let fits = spare.take_if(|fresh| fresh.shift() == shift);
    Ok(fits.ok_or(shift)?.into_node())
}
