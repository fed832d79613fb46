// SPDX-License-Identifier: GPL-2.0

//! The interface of a PAMU, which the release of memory relies on.

use crate::registers::Register;

/// A PAMU, accessed through its register page.
///
/// The methods don't sleep.
///
/// # Safety
///
/// The memory that a window led to is released after the entry was shut and every PAMU drained, and
/// the tables after every PAMU was disabled and drained. So an implementation ensures this:
///
/// - The PAMU reads only tables whose addresses were written to its registers, and only while it is
///   enabled and its gate is open. Transactions reach only what the entries permit.
/// - When [`drain`](Self::drain) returns, all previous writes to registers and tables are in effect,
///   and the transactions that passed before have finished. Hardware can't wait for transactions:
///   its implementation relies on devices being quiet when their memory is released.
pub unsafe trait Pamu: Send + Sync {
    /// Returns the value of a register.
    fn read(&self, register: Register) -> u32;

    /// Writes a register.
    fn write(&self, register: Register, value: u32);

    /// Waits until all previous writes to the tables are effective for transactions.
    ///
    /// Hardware has no such command. Its entry caches see writes to memory, and the caller that
    /// disables a device has to ensure that the device is quiet.
    fn drain(&self);
}
