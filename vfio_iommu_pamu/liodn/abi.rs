// SPDX-License-Identifier: GPL-2.0

//! The memory that a window leads to.

use crate::{
    msi::MsiBank,
    paace::{
        Access,
        Block,
        MIN_SIZE, //
    },
};

/// A block of memory that a device may access through a window.
///
/// # Invariants
///
/// The memory stays accessible to the device as long as a LIODN has a window to it.
#[derive(Clone, Copy, Debug)]
pub struct MappedBlock(Block);

impl MappedBlock {
    /// Returns the block of `size` bytes at `phys`. Address and size are checked when a window is
    /// set to the block.
    ///
    /// # Safety
    ///
    /// The device may access the memory as `access` says, until one of `clear_window`, `configure`,
    /// `unconfigure` and `drop` has returned for every LIODN with a window to this block.
    pub unsafe fn new(phys: u64, size: u64, access: Access) -> Self {
        // INVARIANT: By the contract of this function.
        Self(Block {
            access,
            phys,
            size,
            translated: true,
        })
    }

    /// Returns the doorbell page of `bank`.
    pub fn of_doorbell(bank: &MsiBank, access: Access) -> Self {
        // INVARIANT: Doorbells stay as long as the system, and every LIODN holds a reference to the
        // system.
        Self(Block {
            access,
            phys: bank.page(),
            size: MIN_SIZE,
            translated: true,
        })
    }

    /// Returns the block to write into an entry.
    pub(super) fn block(&self) -> Block {
        self.0
    }
}
