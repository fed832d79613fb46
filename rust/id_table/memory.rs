// SPDX-License-Identifier: GPL-2.0

//! Allocation of the nodes of tables.

use core::mem::ManuallyDrop;

use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::node::{
    Below,
    Inner,
    Leaf,
    Node, //
};
use crate::{
    gfp::Gfp,
    slab::{
        self,
        Slab, //
    }, //
};

/// The slab caches for the nodes of tables.
pub struct Memory<T> {
    leaves: Slab<Leaf<T>>,
    inner: Slab<Inner>,
}

impl<T> Memory<T> {
    /// Creates two slab caches, which `/proc/slabinfo` shows with these names: one for the leaves,
    /// and one for the inner nodes. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(leaves: &'static CStr, inner: &'static CStr) -> Result<Arc<Self>> {
        let memory = Self {
            leaves: Slab::new(leaves)?,
            inner: Slab::new(inner)?,
        };
        Ok(Arc::new(memory, GFP_KERNEL)?)
    }

    /// Frees a node immediately.
    ///
    /// # Safety
    ///
    /// The node was allocated here, and nothing refers to it.
    pub(super) unsafe fn free(&self, node: Node<'_, T>) {
        let object = node.as_ptr();
        // SAFETY: By the invariant of `Node` its children tell its type. By this function's
        // contract the caller owns it.
        unsafe {
            match node.below() {
                Below::Slots(_) => self.leaves.free(object.cast()),
                Below::Nodes(_) => self.inner.free(object.cast()),
            }
        }
    }

    /// Frees a node after a grace period.
    ///
    /// # Safety
    ///
    /// The node was allocated here and was removed from its tree. This is called once for it.
    pub(super) unsafe fn free_later(&self, node: Node<'_, T>) {
        let object = node.as_ptr();
        // SAFETY: As above, except for readers that hold the RCU lock.
        unsafe {
            match node.below() {
                Below::Slots(_) => slab::free_later::<Leaf<T>>(object.cast()),
                Below::Nodes(_) => slab::free_later::<Inner>(object.cast()),
            }
        }
    }
}

impl<T: Default> Memory<T> {
    /// Allocates a node without children.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn alloc(&self, shift: u32, gfp: Gfp) -> Result<Fresh<'_, T>> {
        let object = if shift == 0 {
            self.leaves.alloc(Leaf::new(), gfp)?.cast()
        } else {
            self.inner.alloc(Inner::new(shift), gfp)?.cast()
        };
        // SAFETY: The node was just created like this. INVARIANT: Nothing else refers to it.
        Ok(Fresh(unsafe { Node::new(object) }, self))
    }
}

/// A node that isn't in a tree yet.
///
/// # Invariants
///
/// The node was allocated from the memory, and nothing else refers to it.
pub(super) struct Fresh<'m, T>(Node<'m, T>, &'m Memory<T>);

impl<'m, T> Fresh<'m, T> {
    pub(super) fn shift(&self) -> u32 {
        self.0.shift()
    }

    /// Returns the node, for the caller to add it to a tree.
    pub(super) fn into_node(self) -> Node<'m, T> {
        ManuallyDrop::new(self).0
    }
}

impl<T> Drop for Fresh<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { self.1.free(self.0) };
    }
}
