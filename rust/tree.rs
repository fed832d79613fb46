// SPDX-License-Identifier: GPL-2.0

//! A search tree that a `static` can hold.

use kernel::{
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNode,
        RBTreeNodeReservation, //
    }, //
};

/// An [`RBTree`] that can be created in a constant. The first insertion creates the tree.
pub struct Tree<K, V>(Option<RBTree<K, V>>);

/// An allocated entry, so that inserting it can't fail.
pub struct Node<K, V>(RBTreeNode<K, V>);

impl<K, V> Node<K, V> {
    /// Allocates an entry.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(key: K, value: V) -> Result<Self> {
        Ok(Self(RBTreeNode::new(key, value, GFP_KERNEL)?))
    }
}

/// The memory of an entry.
pub struct Slot<K, V>(RBTreeNodeReservation<K, V>);

impl<K, V> Slot<K, V> {
    /// Allocates the memory.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new() -> Result<Self> {
        Ok(Self(RBTreeNodeReservation::new(GFP_KERNEL)?))
    }

    /// Creates the entry.
    pub fn fill(self, key: K, value: V) -> Node<K, V> {
        Node(self.0.into_node(key, value))
    }
}

impl<K: Ord, V> Tree<K, V> {
    /// Returns an empty tree.
    pub const fn new() -> Self {
        Self(None)
    }

    /// Returns the value of `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.0.as_ref()?.get(key)
    }

    /// Returns the value of `key` for modification.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.0.as_mut()?.get_mut(key)
    }

    /// Returns whether `key` has a value.
    pub fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// Inserts an entry. It replaces an existing entry with the same key.
    pub fn insert(&mut self, node: Node<K, V>) {
        self.0.get_or_insert_with(RBTree::new).insert(node.0);
    }

    /// Removes and returns the value of `key`.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.0.as_mut()?.remove(key)
    }

    /// Returns whether the tree is empty.
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(RBTree::is_empty)
    }

    /// Iterates over the entries in ascending order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().flat_map(RBTree::iter)
    }
}

impl<K: Ord, V> Default for Tree<K, V> {
    fn default() -> Self {
        Self::new()
    }
}
