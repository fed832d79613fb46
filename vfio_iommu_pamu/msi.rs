// SPDX-License-Identifier: GPL-2.0

//! Banks of message signalled interrupts.
//!
//! A device raises an interrupt by a write to the doorbell of a bank, which is a register at a
//! physical address. Each doorbell has an alias in a page of its own, so that a window of 4 KiB
//! contains one doorbell and nothing else.

use crate::paace::PAGE;

/// An MSI bank.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bank {
    doorbell: u64,
}

impl Bank {
    /// Returns the bank with the doorbell at this physical address.
    pub(crate) fn new(doorbell: u64) -> Self {
        Self { doorbell }
    }

    /// Returns the physical address of the doorbell's page.
    pub(crate) fn page(&self) -> u64 {
        self.doorbell - self.offset()
    }

    /// Returns the offset of the doorbell in its page.
    pub(crate) fn offset(&self) -> u64 {
        self.doorbell % PAGE
    }
}
