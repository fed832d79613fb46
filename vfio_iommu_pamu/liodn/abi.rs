// SPDX-License-Identifier: GPL-2.0

//! The memory that a window leads to.

use kernel::prelude::*;

use crate::{
    paace::{
        Access,
        Block,
        MIN_SIZE, //
    },
    system::System, //
};

/// A block of memory that a device may access through a window.
///
/// # Invariants
///
/// The memory stays accessible to the device as long as a LIODN has a window to it.
#[derive(Clone, Copy, Debug)]
pub struct MappedBlock(Content);

/// What a block contains.
#[derive(Clone, Copy, Debug)]
enum Content {
    /// Memory.
    Memory(Block),
    /// The doorbell page of the bank with this number, in the system of the LIODN.
    Bank(u32, Access),
}

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
        Self(Content::Memory(Block {
            access,
            phys,
            size,
            translated: true,
        }))
    }

    /// Returns the doorbell page of a bank. This is the bank with that number in the system of the
    /// LIODN for which a window is set to the block.
    pub fn of_bank(bank: u32, access: Access) -> Self {
        // INVARIANT: By the type invariant of `MsiBank` the doorbell stays as long as the system
        // has the bank. Every LIODN holds a reference to its system, whose banks don't change.
        Self(Content::Bank(bank, access))
    }

    /// Returns the block to write into an entry of a LIODN of `system`.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the system has no such bank.
    pub(super) fn block(&self, system: &System) -> Result<Block> {
        match self.0 {
            Content::Memory(block) => Ok(block),
            Content::Bank(bank, access) => Ok(Block {
                access,
                phys: system.banks().get(bank as usize).ok_or(ENODEV)?.page(),
                size: MIN_SIZE,
                translated: true,
            }),
        }
    }
}
