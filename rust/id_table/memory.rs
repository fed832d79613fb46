// SPDX-License-Identifier: GPL-2.0

//! Memory for the nodes of tables.

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

/// Memory for the nodes of tables.
pub struct Memory<T> {
    leaves: Slab<Leaf<T>>,
    inner: Slab<Inner>,
}

impl<T> Memory<T> {
    /// Two slab caches, which `/proc/slabinfo` shows by these names: one for the leaves, and one for
    /// the nodes above them. May sleep.
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

    /// Gives a node back at once.
    ///
    /// # Safety
    ///
    /// It is from here, and nobody knows it.
    pub(super) unsafe fn free(&self, node: Node<'_, T>) {
        let object = node.as_ptr();
        // SAFETY: It is what its children say by the invariant of `Node`, and by this function's
        // contract it is ours.
        unsafe {
            match node.below() {
                Below::Slots(_) => self.leaves.free(object.cast()),
                Below::Nodes(_) => self.inner.free(object.cast()),
            }
        }
    }

    /// Gives a node back after a grace period.
    ///
    /// # Safety
    ///
    /// It is from here, and has left its tree; this is called once.
    pub(super) unsafe fn free_later(&self, node: Node<'_, T>) {
        let object = node.as_ptr();
        // SAFETY: As above, but for readers that have RCU locked.
        unsafe {
            match node.below() {
                Below::Slots(_) => slab::free_later::<Leaf<T>>(object.cast()),
                Below::Nodes(_) => slab::free_later::<Inner>(object.cast()),
            }
        }
    }
}

impl<T: Default> Memory<T> {
    /// A node without children.
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
        // SAFETY: It was just made so. INVARIANT: Nobody else knows it.
        Ok(Fresh(unsafe { Node::new(object) }, self))
    }
}

/// A node that is in no tree yet.
///
/// # Invariants
///
/// Nobody else knows it. It is from the memory.
pub(super) struct Fresh<'m, T>(Node<'m, T>, &'m Memory<T>);

impl<'m, T> Fresh<'m, T> {
    pub(super) fn shift(&self) -> u32 {
        self.0.shift()
    }

    /// The node, which the caller puts into a tree.
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
