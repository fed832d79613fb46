// SPDX-License-Identifier: GPL-2.0

//! The tree of an [`IdTree`](super::IdTree): the slab caches of its nodes, its lock, and changes.
//!
//! Readers hold the RCU lock. Threads that change the tree hold its spinlock. A node that is
//! removed from the tree is freed after a grace period.

use core::{
    mem::ManuallyDrop,
    ptr, //
};

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Release, //
        },
        rcu,
        Arc,
        LockClassKey,
        SpinLockIrq,
        SpinLockIrqGuard, //
    }, //
};

use super::node::{
    shift_for,
    Below,
    Head,
    Inner,
    Leaf,
    Node,
    BITS, //
};
use crate::{
    gfp::Gfp,
    kmem_cache::{
        self,
        KmemCache, //
    }, //
};

/// The slab caches for the nodes of trees.
pub(crate) struct NodeCaches<T> {
    leaves: KmemCache<Leaf<T>>,
    inner: KmemCache<Inner>,
}

impl<T> NodeCaches<T> {
    /// Creates two slab caches, which `/proc/slabinfo` shows with these names: one for the leaves,
    /// and one for the inner nodes. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(leaves: &'static CStr, inner: &'static CStr) -> Result<Arc<Self>> {
        let caches = Self {
            leaves: KmemCache::new(leaves)?,
            inner: KmemCache::new(inner)?,
        };
        Ok(Arc::new(caches, GFP_KERNEL)?)
    }

    /// Frees a node immediately.
    ///
    /// # Safety
    ///
    /// The node was allocated from these caches, and nothing refers to it.
    unsafe fn free(&self, node: Node<'_, T>) {
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
}

/// Frees a node after a grace period.
///
/// # Safety
///
/// The node was allocated from [`NodeCaches`] and was removed from its tree. This is called once
/// for it.
unsafe fn free_later<T>(node: Node<'_, T>) {
    let object = node.as_ptr();
    // SAFETY: By the invariant of `Node` its children tell its type. By this function's contract
    // only readers that hold the RCU lock refer to it.
    unsafe {
        match node.below() {
            Below::Slots(_) => kmem_cache::free_later::<Leaf<T>>(object.cast()),
            Below::Nodes(_) => kmem_cache::free_later::<Inner>(object.cast()),
        }
    }
}

/// A node that isn't in a tree yet.
///
/// # Invariants
///
/// The node was allocated from the caches, and nothing else refers to it.
pub(super) struct NewNode<'t, T>(Node<'t, T>, &'t NodeCaches<T>);

impl<'t, T> NewNode<'t, T> {
    /// Returns the node, for the caller to add it to a tree.
    fn into_node(self) -> Node<'t, T> {
        ManuallyDrop::new(self).0
    }
}

impl<T> Drop for NewNode<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { self.1.free(self.0) };
    }
}

/// The nodes of a tree, and the lock that protects changes of it.
///
/// # Invariants
///
/// The root is null or a node from the caches. So are all children. A child is one level below its
/// parent. The nodes are changed only with `changes` locked.
#[pin_data(PinnedDrop)]
pub(super) struct Tree<T> {
    root: Atomic<*mut Head>,
    caches: Arc<NodeCaches<T>>,
    #[pin]
    changes: SpinLockIrq<Changes>,
}

/// State that is kept from one change of a tree to the next.
struct Changes {
    /// The first id of the leaf that became empty last. That leaf is kept, so that allocating and
    /// freeing the same id repeatedly doesn't allocate memory each time.
    emptied: Option<u32>,
    /// The total number of ids taken so far, modulo 2^32.
    taken: u32,
}

impl<T> Tree<T> {
    /// Creates a tree without nodes. `name` is the name of its lock for lockdep.
    pub(super) fn new(
        caches: Arc<NodeCaches<T>>,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        // INVARIANT: The tree has no node.
        pin_init!(Self {
            root: Atomic::new(ptr::null_mut()),
            caches,
            changes <- SpinLockIrq::new(Changes { emptied: None, taken: 0 }, name, key),
        })
    }

    /// Returns a view of the current tree.
    #[inline]
    pub(super) fn read<'g>(&'g self, _guard: &'g rcu::Guard) -> View<'g, T> {
        // INVARIANT: The guard proves that RCU is locked for `'g`.
        View(self)
    }

    /// Locks the tree for a change.
    pub(super) fn lock(&self) -> Change<'_, T> {
        Change {
            changes: self.changes.lock(),
            tree: self,
        }
    }

    /// Frees a node and all nodes below it.
    ///
    /// # Safety
    ///
    /// The node is from this tree, and nothing else uses it.
    unsafe fn free_below(&self, node: Node<'_, T>) {
        if let Below::Nodes(children) = node.below() {
            for child in children.iter() {
                // SAFETY: By this function's contract. The recursion is at most six levels deep.
                unsafe { self.free_below(child) };
            }
        }
        // SAFETY: By this function's contract.
        unsafe { self.caches.free(node) };
    }
}

impl<T: Default> Tree<T> {
    /// Allocates a node without children, for [`Change::take`].
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new_node(&self, shift: u32, gfp: Gfp) -> Result<NewNode<'_, T>> {
        let caches = &*self.caches;
        let head = if shift == 0 {
            caches.leaves.alloc(Leaf::new(), gfp)?.cast()
        } else {
            caches.inner.alloc(Inner::new(shift), gfp)?.cast()
        };
        // SAFETY: The node was just created with this shift and no children.
        // INVARIANT: Nothing else refers to it.
        Ok(NewNode(unsafe { Node::new(head) }, caches))
    }
}

#[pinned_drop]
impl<T> PinnedDrop for Tree<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant these are nodes. Nothing uses the tree any more.
        unsafe {
            if let Some(root) = Node::at(&self.root) {
                self.free_below(root);
            }
        }
    }
}

/// A tree, as seen while the caller holds the RCU lock or the lock of the tree.
///
/// # Invariants
///
/// One of the two locks is held for `'t`.
pub(super) struct View<'t, T>(&'t Tree<T>);

impl<'t, T> View<'t, T> {
    #[inline]
    pub(super) fn root(&self) -> Option<Node<'t, T>> {
        // SAFETY: By the invariants of both types.
        unsafe { Node::at(&self.0.root) }
    }
}

/// The right to change a tree: the tree is locked until this is dropped.
pub(super) struct Change<'t, T> {
    changes: SpinLockIrqGuard<'t, Changes>,
    tree: &'t Tree<T>,
}

impl<'t, T> Change<'t, T> {
    /// Returns the tree as readers see it.
    pub(super) fn view(&self) -> View<'_, T> {
        self.locked()
    }

    /// Returns the tree for the other functions of this type, which use it only while they borrow
    /// `self`.
    fn locked(&self) -> View<'t, T> {
        // INVARIANT: The lock is held as long as the result is used.
        View(self.tree)
    }

    /// Takes `id`, which is free. Returns its value, and the number of ids that were taken before,
    /// modulo 2^32.
    ///
    /// # Errors
    ///
    /// The shift of a missing node, which the caller adds with [`Tree::new_node`].
    pub(super) fn take(
        &mut self,
        id: u32,
        spare: &mut Option<NewNode<'t, T>>,
    ) -> Result<(&T, u32), u32> {
        let mut node = self.grow(id, spare)?;
        let slots = loop {
            node = match node.below() {
                Below::Slots(slots) => break slots,
                Below::Nodes(children) => match children.get(node.index(id)) {
                    Some(child) => child,
                    None => {
                        let child = claim(spare, node.shift() - BITS)?;
                        // SAFETY: The child belongs to the level below.
                        unsafe { node.adopt(child, id) };
                        child
                    }
                },
            }
        };
        node.take(id);
        let before = self.changes.taken;
        self.changes.taken = before.wrapping_add(1);
        Ok((&slots[node.index(id)], before))
    }

    /// Adds nodes above the root until it covers `id`. Returns the root.
    fn grow(&self, id: u32, spare: &mut Option<NewNode<'t, T>>) -> Result<Node<'t, T>, u32> {
        loop {
            let root = self.locked().root();
            let shift = match root {
                Some(root) if root.covers(id) => return Ok(root),
                Some(root) => root.shift() + BITS,
                None => shift_for(id),
            };
            let above = claim(spare, shift)?;
            if let Some(root) = root {
                // SAFETY: The new node belongs to the level above. The root contains the id 0.
                unsafe { above.adopt(root, 0) };
            }
            // INVARIANT: This is a node from the caches, and so are the nodes below it.
            self.tree.root.store(above.as_ptr().as_ptr(), Release);
        }
    }

    /// Frees `id`, if it is taken. If that makes its leaf empty, the leaf is kept, and the empty
    /// leaf that was kept so far is freed.
    pub(super) fn release(&mut self, id: u32) {
        let leaf = self.locked().lowest(id).filter(|node| node.has_taken(id));
        let Some(leaf) = leaf else {
            return;
        };
        leaf.release(id);
        if leaf.is_empty() {
            let kept = leaf.start(id, 0);
            let before = core::mem::replace(&mut self.changes.emptied, kept);
            if let Some(other) = before.filter(|_| before != kept) {
                self.prune(other);
            }
        }
    }

    /// Frees the nodes on the path to `id` that have no children, except the root.
    pub(super) fn prune(&mut self, id: u32) {
        let mut lowest = self.locked().lowest(id);
        while let Some(node) = lowest.filter(|node| node.is_empty()) {
            let Some(parent) = node.parent() else {
                return;
            };
            parent.abandon(id);
            // SAFETY: The node is from the caches, and was just removed from the tree.
            unsafe { free_later(node) };
            lowest = Some(parent);
        }
    }
}

/// Takes the spare node for a tree, if it has this shift.
///
/// # Errors
///
/// The shift, if there is no such node.
fn claim<'t, T>(spare: &mut Option<NewNode<'t, T>>, shift: u32) -> Result<Node<'t, T>, u32> {
    let fits = spare.take_if(|new| new.0.shift() == shift);
    Ok(fits.ok_or(shift)?.into_node())
}
