// SPDX-License-Identifier: GPL-2.0

//! The tree of an [`IdTable`](super::IdTable): 64 numbers a leaf, 64 children a node.
//!
//! Every node knows which of its children are full, so the lowest free number is found by going down
//! once, whatever is taken. Nodes without children are given back.

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

/// A tree.
///
/// # Invariants
///
/// The root is null or a node from the memory. So are all children, which are one level lower.
pub(super) struct Tree<T> {
    root: Atomic<*mut Head>,
    pub(super) memory: Arc<Memory<T>>,
}

impl<T> Tree<T> {
    /// A tree without nodes.
    pub(super) fn new(memory: Arc<Memory<T>>) -> Self {
        // INVARIANT: There is no node.
        Self {
            root: Atomic::new(ptr::null_mut()),
            memory,
        }
    }

    /// The tree as it is now.
    ///
    /// # Safety
    ///
    /// RCU or the table is locked for `'t`.
    #[inline]
    pub(super) unsafe fn view<'t>(&'t self) -> View<'t, T> {
        // INVARIANT: By this function's contract.
        View(self)
    }

    /// Gives back a node and what is below it.
    ///
    /// # Safety
    ///
    /// The node is from here, and nobody uses it.
    unsafe fn free_below(&self, node: Node<'_, T>) {
        if let Below::Nodes(children) = node.below() {
            for child in children.iter() {
                // SAFETY: By this function's contract. No more than six levels are below one another.
                unsafe { self.free_below(child) };
            }
        }
        // SAFETY: As above.
        unsafe { self.memory.free(node) };
    }
}

impl<T> Drop for Tree<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant these are nodes. Nobody uses the tree any more.
        unsafe {
            if let Some(root) = Node::at(&self.root) {
                self.free_below(root);
            }
        }
    }
}

/// A tree as it is seen by who has RCU or the table locked.
///
/// # Invariants
///
/// One of both is locked for `'t`.
pub(super) struct View<'t, T>(&'t Tree<T>);

impl<'t, T> View<'t, T> {
    #[inline]
    fn root(&self) -> Option<Node<'t, T>> {
        // SAFETY: By the invariants of both types.
        unsafe { Node::at(&self.0.root) }
    }

    /// The root, if it is high enough for `id`.
    #[inline]
    fn root_of(&self, id: u32) -> Option<Node<'t, T>> {
        self.root().filter(|root| root.covers(id))
    }

    /// What the number `id` stands for, taken or not.
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

    /// The lowest node on the way to `id`.
    fn lowest(&self, id: u32) -> Option<Node<'t, T>> {
        let mut node = self.root_of(id)?;
        while let Some(child) = node.child(id) {
            node = child;
        }
        Some(node)
    }

    /// The lowest number that is not below `first` and is free.
    ///
    /// A node that has none sends the search back to the root, for what comes after the node. That
    /// happens once a level at most, since whatever else it meets is not full.
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

    /// The lowest number that is not below `first` and is taken, and what it stands for.
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

/// The lowest number that differs from `id` above its lowest `bits` bits, and is higher.
fn after(id: u32, bits: u32) -> Option<u32> {
    u32::try_from(((u64::from(id) >> bits) + 1) << bits).ok()
}

/// A tree that can be changed, by who has the table locked.
pub(super) struct Change<'t, T>(View<'t, T>);

impl<'t, T> Change<'t, T> {
    /// The tree as it is now.
    ///
    /// # Safety
    ///
    /// The table is locked for `'t`.
    pub(super) unsafe fn new(tree: &'t Tree<T>) -> Self {
        // SAFETY: By this function's contract.
        Self(unsafe { tree.view() })
    }

    /// The tree as readers see it.
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
    /// The shift of a node that is missing.
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
                            // SAFETY: The level is that below.
                            unsafe { node.adopt(child, id) };
                            child
                        }
                    }
                }
            }
        }
    }

    /// Puts nodes above the root until that is high enough for `id`.
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
                // SAFETY: The level is that above. The number 0 is the root's first one.
                unsafe { above.adopt(root, 0) };
            }
            // INVARIANT: This is a node from the memory, and so is what is below it.
            self.tree().root.store(above.as_ptr().as_ptr(), Release);
        }
    }

    /// Makes `id` free, if it is taken. If its leaf is empty then it takes the place of the one in
    /// `emptied`, by its first number; that one is given back, unless it has numbers again.
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

    /// Gives back the nodes on the way to `id` that have no children, but for the root.
    pub(super) fn prune(&self, id: u32) {
        let mut lowest = self.view().lowest(id);
        while let Some(node) = lowest.filter(|node| node.is_empty()) {
            let Some(parent) = node.parent() else {
                return;
            };
            parent.abandon(id);
            // SAFETY: The node is from the memory, and has just left the tree.
            unsafe { self.tree().memory.free_later(node) };
            lowest = Some(parent);
        }
    }
}

/// Takes the node for a tree, if it is one with this shift.
///
/// # Errors
///
/// The shift, if it isn't.
fn claim<'t, T>(spare: &mut Option<Fresh<'t, T>>, shift: u32) -> Result<Node<'t, T>, u32> {
    let fits = spare.take_if(|fresh| fresh.shift() == shift);
    Ok(fits.ok_or(shift)?.into_node())
}
