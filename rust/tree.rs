// SPDX-License-Identifier: GPL-2.0

//! A search tree that a `static` can hold.

use kernel::{
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNode, //
    }, //
};

/// A [`RBTree`] that can be made in a constant: until the first insertion there is none.
pub struct Tree<K, V>(Option<RBTree<K, V>>);

/// An entry that is allocated, so that inserting it can't fail.
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

impl<K: Ord, V> Tree<K, V> {
    /// A tree without entries.
    pub const fn new() -> Self {
        Self(None)
    }

    /// The value of `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.0.as_ref()?.get(key)
    }

    /// The value of `key`, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.0.as_mut()?.get_mut(key)
    }

    /// Whether there is a value of `key`.
    pub fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// Enters a value, in place of the one which its key had.
    pub fn insert(&mut self, node: Node<K, V>) {
        self.0.get_or_insert_with(RBTree::new).insert(node.0);
    }

    /// Takes the value of `key` out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.0.as_mut()?.remove(key)
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(RBTree::is_empty)
    }

    /// The entries, by ascending key.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().flat_map(RBTree::iter)
    }
}

impl<K: Ord, V> Default for Tree<K, V> {
    fn default() -> Self {
        Self::new()
    }
}
