// SPDX-License-Identifier: GPL-2.0

//! Searching the tree of an [`IdTree`](super::IdTree).
//!
//! Every node stores which of its children are full, so one walk down the tree finds the lowest
//! free id, whatever is taken.

use super::{
    abi::View,
    node::{
        Below,
        Node,
        BITS, //
    }, //
};

impl<'t, T> View<'t, T> {
    /// Returns the root, if it covers `id`.
    #[inline]
    fn root_of(&self, id: u32) -> Option<Node<'t, T>> {
        self.root().filter(|root| root.covers(id))
    }

    /// Returns the value of the id `id`, whether it is taken or free.
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

    /// Returns the lowest node on the path to `id`.
    pub(super) fn lowest(&self, id: u32) -> Option<Node<'t, T>> {
        let mut node = self.root_of(id)?;
        while let Some(child) = node.child(id) {
            node = child;
        }
        Some(node)
    }

    /// Returns the lowest free id that is at least `first`.
    ///
    /// If a node has no free id, the search restarts at the root for the ids after the node. That
    /// happens at most once for each level, because no other node that it visits is full.
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

    /// Returns the lowest taken id that is at least `first`, and its value.
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

/// Returns the lowest id above `id` that differs from it in the bits above the lowest `bits` bits.
fn after(id: u32, bits: u32) -> Option<u32> {
    u32::try_from(((u64::from(id) >> bits) + 1) << bits).ok()
}
