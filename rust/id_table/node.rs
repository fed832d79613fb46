// SPDX-License-Identifier: GPL-2.0

//! The nodes of the tree of an [`IdTable`](super::IdTable).

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
    },
};

use crate::read_once::{
    read_once,
    write_once, //
};

/// The number of bits of an id that a node decodes.
pub(super) const BITS: u32 = 6;
/// The number of children of a node.
const CHILDREN: usize = 1 << BITS;

/// Returns the shift of the lowest root that covers `id`.
pub(super) fn shift_for(id: u32) -> u32 {
    id.checked_ilog2().unwrap_or(0) / BITS * BITS
}

/// The common part of inner nodes and leaves.
pub(super) struct Head {
    shift: u32,
    /// Bit n is set if child n is full; in a leaf, if id n is taken. Changed with the lock held.
    full: Atomic<u64>,
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
pub(super) struct Inner {
    head: Head,
    children: [Atomic<*mut Head>; CHILDREN],
}

impl Inner {
    pub(super) fn new(shift: u32) -> Self {
        Self {
            head: Head::new(shift),
            children: [const { Atomic::new(ptr::null_mut()) }; CHILDREN],
        }
    }
}

/// A node that contains the values.
#[repr(C)]
pub(super) struct Leaf<T> {
    head: Head,
    slots: [T; CHILDREN],
}

impl<T: Default> Leaf<T> {
    pub(super) fn new() -> impl Init<Self> {
        init!(Self {
            head: Head::new(0),
            slots <- pin_init::init_array_from_fn(|_| T::default()),
        })
    }
}

/// A node, as seen while the caller holds the RCU lock or the lock of the table.
///
/// # Invariants
///
/// The pointer is that of a [`Leaf<T>`] if the shift is 0, otherwise of an [`Inner`]. It is valid
/// for `'t`, and so are its parent and its children: a node that is removed from a tree stays valid
/// for a grace period.
pub(super) struct Node<'t, T>(NonNull<Head>, PhantomData<&'t T>);

impl<T> Clone for Node<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Node<'_, T> {}

/// The children of a node.
pub(super) enum Below<'t, T> {
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
    pub(super) unsafe fn new(head: NonNull<Head>) -> Self {
        // INVARIANT: By this function's contract.
        Self(head, PhantomData)
    }

    /// Returns the pointer to the [`Inner`] or the [`Leaf<T>`].
    #[inline]
    pub(super) fn as_ptr(self) -> NonNull<Head> {
        self.0
    }

    /// Returns the node that `place` points to.
    ///
    /// # Safety
    ///
    /// `place` contains null, or a pointer that satisfies the type invariant.
    #[inline]
    pub(super) unsafe fn at(place: &Atomic<*mut Head>) -> Option<Self> {
        // INVARIANT: By this function's contract.
        NonNull::new(read_once(place)).map(|head| Self(head, PhantomData))
    }

    #[inline]
    fn head(self) -> &'t Head {
        // SAFETY: By the type invariant.
        unsafe { self.0.as_ref() }
    }

    /// Returns the number of bits of an id below those that select a child; 0 in a leaf.
    #[inline]
    pub(super) fn shift(self) -> u32 {
        self.head().shift
    }

    /// Returns whether the subtree of this node, as a root, has a place for `id`.
    #[inline]
    pub(super) fn covers(self, id: u32) -> bool {
        u64::from(id) >> (self.shift() + BITS) == 0
    }

    /// Returns the index of the child on the path to `id`.
    #[inline]
    pub(super) fn index(self, id: u32) -> usize {
        (id >> self.shift()) as usize % CHILDREN
    }

    /// Returns the lowest id below the child at `index`, for a node on the path to `id`.
    pub(super) fn start(self, id: u32, index: usize) -> Option<u32> {
        let above = u64::from(id) >> (self.shift() + BITS);
        u32::try_from((above << BITS | index as u64) << self.shift()).ok()
    }

    /// Returns the children.
    #[inline]
    pub(super) fn below(self) -> Below<'t, T> {
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

    /// Returns the child on the path to `id`, or `None` in a leaf.
    pub(super) fn child(self, id: u32) -> Option<Self> {
        match self.below() {
            Below::Nodes(children) => children.get(self.index(id)),
            Below::Slots(_) => None,
        }
    }

    /// Returns the first child from `index` on that isn't full; in a leaf, the lowest free id.
    pub(super) fn first_free(self, index: usize) -> Option<usize> {
        first_bit(!read_once(&self.head().full), index)
    }

    /// Returns the first child from `index` on that is full; in a leaf, the lowest taken id.
    pub(super) fn first_full(self, index: usize) -> Option<usize> {
        first_bit(read_once(&self.head().full), index)
    }

    /// Returns whether this is the leaf of `id` and `id` is taken.
    pub(super) fn has_taken(self, id: u32) -> bool {
        self.shift() == 0 && read_once(&self.head().full) & 1 << self.index(id) != 0
    }

    /// Returns whether this node has no children, or in a leaf no taken id.
    pub(super) fn is_empty(self) -> bool {
        match self.below() {
            Below::Slots(_) => read_once(&self.head().full) == 0,
            Below::Nodes(children) => children.iter().next().is_none(),
        }
    }

    /// Returns the parent of this node. The caller holds the lock.
    pub(super) fn parent(self) -> Option<Self> {
        // SAFETY: By the type invariant.
        unsafe { Self::at(&self.head().parent) }
    }

    /// Marks `id` as taken, and the nodes that become full by that. The caller holds the lock.
    pub(super) fn take(self, id: u32) {
        let full = read_once(&self.head().full) | 1 << self.index(id);
        write_once(&self.head().full, full);
        if let (u64::MAX, Some(parent)) = (full, self.parent()) {
            parent.take(id);
        }
    }

    /// Marks `id` as free, and the nodes that were full before as not full. The caller holds the
    /// lock.
    pub(super) fn release(self, id: u32) {
        let full = read_once(&self.head().full);
        write_once(&self.head().full, full & !(1 << self.index(id)));
        if let (u64::MAX, Some(parent)) = (full, self.parent()) {
            parent.release(id);
        }
    }

    /// Adds a node as the child of this node on the path to `id`. The caller holds the lock.
    ///
    /// # Safety
    ///
    /// This is an inner node. The other node belongs to the level below and isn't in a tree, unless
    /// it was the root so far.
    pub(super) unsafe fn adopt(self, node: Node<'_, T>, id: u32) {
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
    pub(super) fn abandon(self, id: u32) {
        if let Below::Nodes(children) = self.below() {
            write_once(&children.0[self.index(id)], ptr::null_mut());
        }
    }
}

/// Returns the lowest bit that is set, from `index` on.
fn first_bit(bits: u64, index: usize) -> Option<usize> {
    let bits = bits & u64::MAX << index;
    (bits != 0).then(|| bits.trailing_zeros() as usize)
}

/// The children of an inner node.
///
/// # Invariants
///
/// They are null or nodes with leaves of `T`, and are valid for `'t`.
pub(super) struct Children<'t, T>(&'t [Atomic<*mut Head>; CHILDREN], PhantomData<&'t T>);

impl<'t, T> Children<'t, T> {
    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<Node<'t, T>> {
        // SAFETY: By the type invariant.
        unsafe { Node::at(&self.0[index % CHILDREN]) }
    }

    /// Iterates over the children that exist.
    pub(super) fn iter(&self) -> impl Iterator<Item = Node<'t, T>> + '_ {
        (0..CHILDREN).filter_map(|index| self.get(index))
    }
}
