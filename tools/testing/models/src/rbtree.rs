// SPDX-License-Identifier: GPL-2.0

//! `kernel::rbtree`, on top of the standard library's tree.

use std::{
    collections::BTreeMap,
    marker::PhantomData,
    ops::Bound, //
};

use crate::prelude::{
    Flags,
    Result, //
};

/// Values in the order of their keys.
pub struct RBTree<K, V>(BTreeMap<K, V>);

impl<K: Ord + Copy, V> RBTree<K, V> {
    /// An empty one.
    pub fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Enters a node. Returns the one that had its key.
    pub fn insert(&mut self, node: RBTreeNode<K, V>) -> Option<RBTreeNode<K, V>> {
        let RBTreeNode { key, value } = node;
        let old = self.0.insert(key, value);
        old.map(|value| RBTreeNode { key, value })
    }

    /// The value of a key.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.0.get_mut(key)
    }

    /// The node of a key.
    pub fn find_mut(&mut self, key: &K) -> Option<OccupiedEntry<'_, K, V>> {
        self.0.contains_key(key).then_some(OccupiedEntry {
            tree: &mut self.0,
            key: *key,
        })
    }

    /// The first node whose key is `key` or more.
    pub fn cursor_lower_bound(&self, key: &K) -> Option<Cursor<'_, K, V>> {
        self.0
            .range(key..)
            .next()
            .map(|(key, value)| Cursor { key, value })
    }

    /// The first node whose key is `key` or more, to change the tree.
    pub fn cursor_lower_bound_mut(&mut self, key: &K) -> Option<CursorMut<'_, K, V>> {
        let key = *self.0.range(key..).next()?.0;
        Some(CursorMut {
            tree: &mut self.0,
            key,
        })
    }
}

impl<K: Ord + Copy, V> Default for RBTree<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

/// A node in a tree.
pub struct OccupiedEntry<'a, K, V> {
    tree: &'a mut BTreeMap<K, V>,
    key: K,
}

impl<K: Ord + Copy, V> OccupiedEntry<'_, K, V> {
    /// Its value.
    pub fn get_mut(&mut self) -> &mut V {
        let value = self.tree.get_mut(&self.key);
        value.expect("the node is in the tree")
    }

    /// Takes the value out.
    pub fn remove(self) -> V {
        let value = self.tree.remove(&self.key);
        value.expect("the node was in the tree")
    }
}

/// A place in a tree.
pub struct Cursor<'a, K, V> {
    key: &'a K,
    value: &'a V,
}

impl<K, V> Cursor<'_, K, V> {
    /// What is there.
    pub fn current(&self) -> (&K, &V) {
        (self.key, self.value)
    }
}

/// A place in a tree, which can be changed.
pub struct CursorMut<'a, K, V> {
    tree: &'a mut BTreeMap<K, V>,
    key: K,
}

impl<K: Ord + Copy, V> CursorMut<'_, K, V> {
    /// What is there.
    pub fn current_mut(&mut self) -> (&K, &mut V) {
        let value = self.tree.get_mut(&self.key);
        (&self.key, value.expect("the node is in the tree"))
    }

    fn after(&self) -> Option<K> {
        let rest = (Bound::Excluded(self.key), Bound::Unbounded);
        self.tree.range(rest).next().map(|(key, _)| *key)
    }

    /// Goes on to the next node.
    pub fn move_next(self) -> Option<Self> {
        let key = self.after()?;
        Some(Self { key, ..self })
    }

    /// Takes the node out. Returns a cursor at the next one, or else the one before, as the
    /// kernel's.
    pub fn remove_current(self) -> (Option<Self>, RBTreeNode<K, V>) {
        let value = self.tree.remove(&self.key);
        let node = RBTreeNode {
            key: self.key,
            value: value.expect("the node was in the tree"),
        };
        let before = self.tree.range(..self.key).next_back().map(|(key, _)| *key);
        let neighbour = self.after().or(before);
        (neighbour.map(|key| Self { key, ..self }), node)
    }
}

/// A key and its value.
pub struct RBTreeNode<K, V> {
    key: K,
    value: V,
}

/// Memory for a node.
pub struct RBTreeNodeReservation<K, V>(PhantomData<(K, V)>);

impl<K, V> RBTreeNodeReservation<K, V> {
    /// Memory for a node.
    pub fn new(_: Flags) -> Result<Self> {
        Ok(Self(PhantomData))
    }

    /// A node.
    pub fn into_node(self, key: K, value: V) -> RBTreeNode<K, V> {
        RBTreeNode { key, value }
    }
}
