// SPDX-License-Identifier: GPL-2.0

//! The memory that a window leads to.

#[cfg(CONFIG_KUNIT = "y")]
use super::Contiguous;

use crate::{
    msi::Bank,
    paace::{
        self,
        Access,
        Block, //
    },
};

/// Memory that a device may access through a window.
///
/// # Invariants
///
/// The memory stays accessible to the device as long as a LIODN has a window to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window(Block);

impl Window {
    /// Returns a window to `size` bytes at `phys`. Address and size are checked when the window is
    /// set.
    ///
    /// # Safety
    ///
    /// The device may access the memory as `access` says, until one of `clear_window`, `configure`,
    /// `unconfigure` and `drop` has returned for every LIODN in which this window was set.
    pub(crate) unsafe fn new(phys: u64, size: u64, access: Access) -> Self {
        // INVARIANT: By the contract of this function.
        Self(Block {
            access,
            phys,
            size,
            translated: true,
        })
    }

    /// Returns a window to the first `size` bytes of `memory`, for tests. Tests drop the memory
    /// after every LIODN that it was set in.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(crate) fn of_memory(memory: &Contiguous, size: u64, access: Access) -> Self {
        // SAFETY: The tests keep the memory that long. A size that isn't the memory's is refused
        // everywhere.
        unsafe { Self::new(memory.phys(), size, access) }
    }

    /// Returns a window to the doorbell page of `bank`.
    pub(crate) fn of_doorbell(bank: &Bank, access: Access) -> Self {
        // INVARIANT: Doorbells stay as long as the system, and every LIODN holds a reference to the
        // system.
        Self(Block {
            access,
            phys: bank.page(),
            size: paace::PAGE,
            translated: true,
        })
    }

    /// Returns the block to write into an entry.
    pub(crate) fn block(&self) -> Block {
        self.0
    }
}
