// SPDX-License-Identifier: GPL-2.0

//! What the tree of an [`IdTable`](super::IdTable) consists of.

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

/// How many bits of a number a node decides.
pub(super) const BITS: u32 = 6;
/// How many children a node has.
const CHILDREN: usize = 1 << BITS;

/// The shift of a root that is just high enough for `id`.
pub(super) fn shift_for(id: u32) -> u32 {
    id.checked_ilog2().unwrap_or(0) / BITS * BITS
}

/// What inner nodes and leaves have in common.
pub(super) struct Head {
    shift: u32,
    /// Bit n is set if child n is full; in a leaf, if number n is taken. Changed under the lock.
    full: Atomic<u64>,
    /// Null for the root. For those who have the lock.
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

/// A node with what the numbers stand for.
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

/// A node, as it is seen by who has RCU or the table locked.
///
/// # Invariants
///
/// The pointer is that of a [`Leaf<T>`] if the shift is 0, else of an [`Inner`]. It is valid for `'t`,
/// and so are its parent and its children: what leaves a tree stays for a grace period.
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
    /// A node that is in no tree yet.
    ///
    /// # Safety
    ///
    /// It is an [`Inner`], or a [`Leaf<T>`] if its shift is 0, without children and valid for `'t`.
    pub(super) unsafe fn new(head: NonNull<Head>) -> Self {
        // INVARIANT: By this function's contract.
        Self(head, PhantomData)
    }

    /// The pointer to the [`Inner`] or the [`Leaf<T>`].
    #[inline]
    pub(super) fn as_ptr(self) -> NonNull<Head> {
        self.0
    }

    /// The node at a place in a tree.
    ///
    /// # Safety
    ///
    /// There is null, or what the type invariant says.
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

    /// How many bits of a number are below those that choose a child; 0 in a leaf.
    #[inline]
    pub(super) fn shift(self) -> u32 {
        self.head().shift
    }

    /// Whether the subtree of this node, as a root, has a place for `id`.
    #[inline]
    pub(super) fn covers(self, id: u32) -> bool {
        u64::from(id) >> (self.shift() + BITS) == 0
    }

    /// Which child leads to `id`.
    #[inline]
    pub(super) fn index(self, id: u32) -> usize {
        (id >> self.shift()) as usize % CHILDREN
    }

    /// The lowest number below the child at `index`, for a node on the way to `id`.
    pub(super) fn start(self, id: u32, index: usize) -> Option<u32> {
        let above = u64::from(id) >> (self.shift() + BITS);
        u32::try_from((above << BITS | index as u64) << self.shift()).ok()
    }

    /// The children.
    #[inline]
    pub(super) fn below(self) -> Below<'t, T> {
        if self.shift() == 0 {
            // SAFETY: By the type invariant.
            Below::Slots(unsafe { &(*self.0.cast::<Leaf<T>>().as_ptr()).slots })
        } else {
            // SAFETY: By the type invariant.
            let children = unsafe { &(*self.0.cast::<Inner>().as_ptr()).children };
            // INVARIANT: They are a node's.
            Below::Nodes(Children(children, PhantomData))
        }
    }

    /// The child that leads to `id`, if this is no leaf.
    pub(super) fn child(self, id: u32) -> Option<Self> {
        match self.below() {
            Below::Nodes(children) => children.get(self.index(id)),
            Below::Slots(_) => None,
        }
    }

    /// The lowest child that is not below `index` and not full; in a leaf, the lowest free number.
    pub(super) fn first_free(self, index: usize) -> Option<usize> {
        first_bit(!read_once(&self.head().full), index)
    }

    /// The lowest child that is not below `index` and full; in a leaf, the lowest number taken.
    pub(super) fn first_full(self, index: usize) -> Option<usize> {
        first_bit(read_once(&self.head().full), index)
    }

    /// Whether this is the leaf of `id`, which is taken.
    pub(super) fn has_taken(self, id: u32) -> bool {
        self.shift() == 0 && read_once(&self.head().full) & 1 << self.index(id) != 0
    }

    /// Whether nothing is below this node.
    pub(super) fn is_empty(self) -> bool {
        match self.below() {
            Below::Slots(_) => read_once(&self.head().full) == 0,
            Below::Nodes(children) => children.iter().next().is_none(),
        }
    }

    /// The node that this one is a child of. The caller has the lock.
    pub(super) fn parent(self) -> Option<Self> {
        // SAFETY: By the type invariant.
        unsafe { Self::at(&self.head().parent) }
    }

    /// Marks `id` as taken, and all nodes that are full then. The caller has the lock.
    pub(super) fn take(self, id: u32) {
        let full = read_once(&self.head().full) | 1 << self.index(id);
        write_once(&self.head().full, full);
        if let (u64::MAX, Some(parent)) = (full, self.parent()) {
            parent.take(id);
        }
    }

    /// Marks `id` as free, and all nodes that were full until then. The caller has the lock.
    pub(super) fn release(self, id: u32) {
        let full = read_once(&self.head().full);
        write_once(&self.head().full, full & !(1 << self.index(id)));
        if let (u64::MAX, Some(parent)) = (full, self.parent()) {
            parent.release(id);
        }
    }

    /// Puts a node below this one, where `id` belongs. The caller has the lock.
    ///
    /// # Safety
    ///
    /// This is an inner node; the other one is right for the level below, and in no tree, unless it
    /// was the root so far.
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

    /// Takes the child to which `id` leads out of the tree. The caller has the lock.
    pub(super) fn abandon(self, id: u32) {
        if let Below::Nodes(children) = self.below() {
            write_once(&children.0[self.index(id)], ptr::null_mut());
        }
    }
}

/// The lowest bit that is set, from the one at `index` on.
fn first_bit(bits: u64, index: usize) -> Option<usize> {
    let bits = bits & u64::MAX << index;
    (bits != 0).then(|| bits.trailing_zeros() as usize)
}

/// The children of an inner node.
///
/// # Invariants
///
/// They are null or nodes with leaves of `T`, which are valid for `'t`.
pub(super) struct Children<'t, T>(&'t [Atomic<*mut Head>; CHILDREN], PhantomData<&'t T>);

impl<'t, T> Children<'t, T> {
    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<Node<'t, T>> {
        // SAFETY: By the type invariant.
        unsafe { Node::at(&self.0[index % CHILDREN]) }
    }

    /// All that there are.
    pub(super) fn iter(&self) -> impl Iterator<Item = Node<'t, T>> + '_ {
        (0..CHILDREN).filter_map(|index| self.get(index))
    }
}
