// SPDX-License-Identifier: GPL-2.0

//! The pinned pages of a device.

use kernel::{
    prelude::*,
    rbtree::RBTree, //
};
use vfio_mdev::GuestPages;

/// Pinned pages, by their first iova.
pub(crate) struct Pages(RBTree<u64, GuestPages>);

impl Pages {
    pub(crate) fn new() -> Self {
        Self(RBTree::new())
    }

    /// Returns the number of entries.
    pub(crate) fn count(&self) -> usize {
        self.0.iter().count()
    }

    /// Returns the pages that begin at `iova`.
    pub(crate) fn get(&self, iova: u64) -> Option<&GuestPages> {
        self.0.get(&iova)
    }

    /// Returns all pages.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &GuestPages> {
        self.0.values()
    }

    /// Adds pages. They replace pages that begin at the same iova.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn insert(&mut self, pages: GuestPages) -> Result {
        self.0
            .try_create_and_insert(pages.iova(), pages, GFP_KERNEL)?;
        Ok(())
    }

    /// Unpins the pages that begin between `first` and `last`, both included.
    pub(crate) fn remove(&mut self, first: u64, last: u64) {
        while let Some(cursor) = self.0.cursor_lower_bound_mut(&first) {
            if *cursor.current().0 > last {
                break;
            }
            cursor.remove_current();
        }
    }

    /// Removes and returns all pages.
    pub(crate) fn take(&mut self) -> Self {
        core::mem::replace(self, Self::new())
    }
}
