// SPDX-License-Identifier: GPL-2.0

//! The nodes of an [`IdTree`](super::IdTree): which of their ids are free or taken.
//!
//! A leaf has 64 ids, and an inner node has 64 children. Every node stores which of its children
//! are full.

#[allow(unsafe_code)]
mod abi;

use crate::read_once::{
    read_once,
    write_once, //
};

pub(super) use abi::{
    Below,
    Head,
    Inner,
    Leaf,
    Node, //
};

/// The number of bits of an id that a node decodes.
pub(super) const BITS: u32 = 6;
/// The number of children of a node.
pub(super) const CHILDREN: usize = 1 << BITS;

/// Returns the shift of the lowest root that covers `id`.
pub(super) fn shift_for(id: u32) -> u32 {
    id.checked_ilog2().unwrap_or(0) / BITS * BITS
}

/// Returns the lowest set bit at or after `index`.
fn first_bit(bits: u64, index: usize) -> Option<usize> {
    let bits = bits & u64::MAX << index;
    (bits != 0).then(|| bits.trailing_zeros() as usize)
}

impl<T> Node<'_, T> {
    /// Returns the number of bits of an id below those that select a child; 0 in a leaf.
    #[inline]
    pub(super) fn shift(self) -> u32 {
        self.head().shift
    }

    /// Whether the subtree of this node, as a root, has a place for `id`.
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

    /// Returns the child on the path to `id`, or `None` in a leaf.
    pub(super) fn child(self, id: u32) -> Option<Self> {
        match self.below() {
            Below::Nodes(children) => children.get(self.index(id)),
            Below::Slots(_) => None,
        }
    }

    /// Returns the first child at or after `index` that isn't full; in a leaf, the lowest free id.
    pub(super) fn first_free(self, index: usize) -> Option<usize> {
        first_bit(!read_once(&self.head().full), index)
    }

    /// Returns the first child at or after `index` that is full; in a leaf, the lowest taken id.
    pub(super) fn first_full(self, index: usize) -> Option<usize> {
        first_bit(read_once(&self.head().full), index)
    }

    /// Whether this is the leaf of `id` and `id` is taken.
    pub(super) fn has_taken(self, id: u32) -> bool {
        self.shift() == 0 && read_once(&self.head().full) & 1 << self.index(id) != 0
    }

    /// Whether this node has no children, or in a leaf no taken id.
    pub(super) fn is_empty(self) -> bool {
        match self.below() {
            Below::Slots(_) => read_once(&self.head().full) == 0,
            Below::Nodes(children) => children.iter().next().is_none(),
        }
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
}
