// SPDX-License-Identifier: GPL-2.0

//! The interface of a PAMU, which the release of memory relies on, and the operations that write
//! its registers.

use crate::{
    registers::{
        avs1,
        pc,
        pics,
        Register, //
    },
    tables::{
        Table,
        Tables, //
    },
};

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
/// - When [`drain`](Self::drain) returns, all previous writes to registers and tables are in
///   effect, and the transactions that passed before have finished. Hardware can't wait for
///   transactions. Its implementation relies on devices that don't write to memory which is being
///   unmapped; `Documentation/pamu_hardware.rst` states this limit.
pub unsafe trait Pamu: Send + Sync {
    /// Returns the value of a register.
    fn read(&self, register: Register) -> u32;

    /// Writes a register.
    ///
    /// # Safety
    ///
    /// The PAMU is enabled only with the addresses of [`Tables`] that exist until it was disabled
    /// and drained.
    unsafe fn write(&self, register: Register, value: u32);

    /// Waits until all previous writes to the tables are effective for transactions.
    ///
    /// Hardware has no such command. Its entry caches see writes to memory, but a transaction that
    /// it permitted before may still be on its way.
    fn drain(&self);
}

impl dyn Pamu + '_ {
    /// Sets the tables of the PAMU and enables it.
    ///
    /// Erratum A-005982: the operation mapping cache is enabled before the addresses of the tables
    /// are written.
    ///
    /// # Safety
    ///
    /// `tables` exist until `disable()` has disabled the PAMU.
    pub(crate) unsafe fn enable(&self, tables: &Tables) {
        use Register::*;
        let all = [
            (Table::Ppaact, [Ppbah, Ppbal, Pplah, Pplal]),
            (Table::Spaact, [Spbah, Spbal, Splah, Splal]),
            (Table::Omt, [Obah, Obal, Olah, Olal]),
        ];
        // SAFETY: By this function's contract. The PAMU is enabled after all addresses were
        // written.
        unsafe {
            self.write(Pc, self.read(Pc) | pc::OCE);
            for (table, [base_high, base_low, limit_high, limit_low]) in all {
                let (base, limit) = tables.bounds(table);
                self.write(base_high, (base >> 32) as u32);
                self.write(base_low, base as u32);
                self.write(limit_high, (limit >> 32) as u32);
                self.write(limit_low, limit as u32);
            }
            // Clear the status that a boot loader's use of the PAMU left behind; no entry of these
            // tables caused it.
            self.write(Avs1, avs1::STATUS);
            self.write(Pics, pics::AV | pics::AV_ENABLE);
            self.write(Pc, pc::PE | pc::OCE | pc::SPCC | pc::PPCC);
        }
        self.drain();
    }

    /// Closes the gate. Nothing passes the PAMU any more, and it doesn't read its tables.
    pub(crate) fn disable(&self) {
        // SAFETY: The PAMU is disabled.
        unsafe {
            self.write(Register::Pics, 0);
            self.write(Register::Pc, pc::PGC);
        }
        self.drain();
    }

    /// Writes the interrupt control and status.
    pub(super) fn write_pics(&self, value: u32) {
        // SAFETY: This register has neither an address nor the enable bit.
        unsafe { self.write(Register::Pics, value) };
    }

    /// Clears bits of the status of the last violation.
    pub(super) fn clear_avs1(&self, bits: u32) {
        // SAFETY: This register has neither an address nor the enable bit.
        unsafe { self.write(Register::Avs1, bits) };
    }
}
