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
/// The memory stays what it is as long as a LIODN has a window to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window(Block);

impl Window {
    /// A window to `size` bytes at `phys`; whether these are good ones is checked when it is set.
    ///
    /// # Safety
    ///
    /// The memory is the device's for `access`, until for every LIODN in which this window was set
    /// one of `clear_window`, `configure`, `unconfigure` and `drop` has returned.
    pub(crate) unsafe fn new(phys: u64, size: u64, access: Access) -> Self {
        // INVARIANT: By the contract of this function.
        Self(Block {
            access,
            phys,
            size,
            translated: true,
        })
    }

    /// A window to the first `size` bytes of `memory`, for tests: those drop the memory after every
    /// LIODN that it was set in.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(crate) fn of_memory(memory: &Contiguous, size: u64, access: Access) -> Self {
        // SAFETY: As the tests see to it; a size that isn't the memory's is refused everywhere.
        unsafe { Self::new(memory.phys(), size, access) }
    }

    /// A window to the page of the doorbell of `bank`.
    pub(crate) fn of_doorbell(bank: &Bank, access: Access) -> Self {
        // INVARIANT: Doorbells stay as long as the system, of which every LIODN has a reference.
        Self(Block {
            access,
            phys: bank.page(),
            size: paace::PAGE,
            translated: true,
        })
    }

    /// What to write into an entry.
    pub(crate) fn block(&self) -> Block {
        self.0
    }
}
