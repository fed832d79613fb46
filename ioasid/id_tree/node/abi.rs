// SPDX-License-Identifier: GPL-2.0

//! The nodes in memory, and the pointers between them.

use core::{
    marker::PhantomData,
    ptr::{
        self,
        NonNull, //
    }, //
};

use kernel::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Release, //
    }, //
};

use super::CHILDREN;
use crate::read_once::{
    read_once,
    write_once, //
};

/// The common part of inner nodes and leaves.
pub(in crate::id_tree) struct Head {
    pub(in crate::id_tree) shift: u32,
    /// Bit n is set if child n is full; in a leaf, if id n is taken. Changed with the lock held.
    pub(in crate::id_tree) full: Atomic<u64>,
    /// The parent, or null for the root. Accessed with the lock held.
    parent: Atomic<*mut Head>,
}

impl Head {
    fn new(shift: u32) -> Self {
        Self {
            shift,
            full: Atomic::new(0),
            parent: Atomic::new(ptr::null_mut()),
        }
    }
}

/// A node whose children are nodes.
#[repr(C)]
pub(in crate::id_tree) struct Inner {
    head: Head,
    children: [Atomic<*mut Head>; CHILDREN],
}

impl Inner {
    /// Creates a node without children.
    pub(in crate::id_tree) fn new(shift: u32) -> Self {
        Self {
            head: Head::new(shift),
            children: [const { Atomic::new(ptr::null_mut()) }; CHILDREN],
        }
    }
}

/// A node that contains the values.
#[repr(C)]
pub(in crate::id_tree) struct Leaf<T> {
    head: Head,
    slots: [T; CHILDREN],
}

impl<T: Default> Leaf<T> {
    /// Creates a leaf whose ids are free.
    pub(in crate::id_tree) fn new() -> impl Init<Self> {
        init!(Self {
            head: Head::new(0),
            slots <- pin_init::init_array_from_fn(|_| T::default()),
        })
    }
}

/// A node, as seen while the caller holds the RCU lock or the lock of the tree.
///
/// # Invariants
///
/// The pointer is that of a [`Leaf<T>`] if the shift is 0, otherwise of an [`Inner`]. It is valid
/// for `'t`, and so are its parent and its children: a node that is removed from a tree stays valid
/// for a grace period.
pub(in crate::id_tree) struct Node<'t, T>(NonNull<Head>, PhantomData<&'t T>);

impl<T> Clone for Node<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Node<'_, T> {}

/// The children of a node.
pub(in crate::id_tree) enum Below<'t, T> {
    Nodes(Children<'t, T>),
    Slots(&'t [T; CHILDREN]),
}

impl<'t, T> Node<'t, T> {
    /// Wraps a node that isn't in a tree yet.
    ///
    /// # Safety
    ///
    /// The node is a [`Leaf<T>`] if its shift is 0, otherwise an [`Inner`]. It has no children and
    /// is valid for `'t`.
    pub(in crate::id_tree) unsafe fn new(head: NonNull<Head>) -> Self {
        // INVARIANT: By this function's contract.
        Self(head, PhantomData)
    }

    /// Returns the pointer to the [`Inner`] or the [`Leaf<T>`].
    pub(in crate::id_tree) fn as_ptr(self) -> NonNull<Head> {
        self.0
    }

    /// Returns the node that `place` points to.
    ///
    /// # Safety
    ///
    /// `place` contains null, or a pointer that satisfies the type invariant.
    #[inline]
    pub(in crate::id_tree) unsafe fn at(place: &Atomic<*mut Head>) -> Option<Self> {
        // INVARIANT: By this function's contract.
        NonNull::new(read_once(place)).map(|head| Self(head, PhantomData))
    }

    #[inline]
    pub(in crate::id_tree) fn head(self) -> &'t Head {
        // SAFETY: By the type invariant.
        unsafe { self.0.as_ref() }
    }

    /// Returns the children.
    #[inline]
    pub(in crate::id_tree) fn below(self) -> Below<'t, T> {
        if self.shift() == 0 {
            // SAFETY: By the type invariant.
            Below::Slots(unsafe { &(*self.0.cast::<Leaf<T>>().as_ptr()).slots })
        } else {
            // SAFETY: By the type invariant.
            let children = unsafe { &(*self.0.cast::<Inner>().as_ptr()).children };
            // INVARIANT: They are the children of a node.
            Below::Nodes(Children(children, PhantomData))
        }
    }

    /// Returns the parent of this node. The caller holds the lock.
    pub(in crate::id_tree) fn parent(self) -> Option<Self> {
        // SAFETY: By the type invariant.
        unsafe { Self::at(&self.head().parent) }
    }

    /// Adds a node as the child of this node on the path to `id`. The caller holds the lock.
    ///
    /// # Safety
    ///
    /// This is an inner node. The other node belongs to the level below and isn't in a tree, unless
    /// it was the root so far.
    pub(in crate::id_tree) unsafe fn adopt(self, node: Node<'_, T>, id: u32) {
        write_once(&node.head().parent, self.0.as_ptr());
        if let Below::Nodes(children) = self.below() {
            // INVARIANT: By this function's contract.
            children.0[self.index(id)].store(node.0.as_ptr(), Release);
        }
        if read_once(&node.head().full) == u64::MAX {
            self.take(id);
        }
    }

    /// Removes the child on the path to `id` from the tree. The caller holds the lock.
    pub(in crate::id_tree) fn abandon(self, id: u32) {
        if let Below::Nodes(children) = self.below() {
            write_once(&children.0[self.index(id)], ptr::null_mut());
        }
    }
}

/// The children of an inner node.
///
/// # Invariants
///
/// They are null or nodes with leaves of `T`, and are valid for `'t`.
pub(in crate::id_tree) struct Children<'t, T>(
    &'t [Atomic<*mut Head>; CHILDREN],
    PhantomData<&'t T>,
);

impl<'t, T> Children<'t, T> {
    #[inline]
    pub(in crate::id_tree) fn get(&self, index: usize) -> Option<Node<'t, T>> {
        // SAFETY: By the type invariant.
        unsafe { Node::at(&self.0[index % CHILDREN]) }
    }

    /// Iterates over the children that exist.
    pub(in crate::id_tree) fn iter(&self) -> impl Iterator<Item = Node<'t, T>> + '_ {
        (0..CHILDREN).filter_map(|index| self.get(index))
    }
}
