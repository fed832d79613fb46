// SPDX-License-Identifier: GPL-2.0

//! The operations on a PAMU through its registers.

#[allow(unsafe_code)]
mod abi;

pub use abi::Pamu;

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
    violation::Report, //
};

impl dyn Pamu + '_ {
    /// Reads a pair of registers as a 64-bit value.
    fn read_pair(&self, high: Register, low: Register) -> u64 {
        u64::from(self.read(high)) << 32 | u64::from(self.read(low))
    }

    fn write_pair(&self, high: Register, low: Register, value: u64) {
        self.write(high, (value >> 32) as u32);
        self.write(low, value as u32);
    }

    /// Sets the tables of the PAMU and enables it.
    ///
    /// Erratum A-005982: the operation mapping cache is enabled before the addresses of the tables
    /// are written.
    pub(crate) fn enable(&self, tables: &Tables) {
        use Register::*;
        self.write(Pc, self.read(Pc) | pc::OCE);
        for (table, registers) in [
            (Table::Ppaact, [Ppbah, Ppbal, Pplah, Pplal]),
            (Table::Spaact, [Spbah, Spbal, Splah, Splal]),
            (Table::Omt, [Obah, Obal, Olah, Olal]),
        ] {
            let (base, limit) = tables.bounds(table);
            self.write_pair(registers[0], registers[1], base);
            self.write_pair(registers[2], registers[3], limit);
        }
        // Clear the status that a boot loader's use of the PAMU left behind; no entry of these
        // tables caused it.
        self.write(Avs1, avs1::STATUS);
        self.write(Pics, pics::AV_ENABLE);
        self.write(Pc, pc::PE | pc::OCE | pc::SPCC | pc::PPCC);
        self.drain();
    }

    /// Closes the gate. Nothing passes the PAMU any more, and it doesn't read its tables.
    pub(crate) fn disable(&self) {
        self.write(Register::Pics, 0);
        self.write(Register::Pc, pc::PGC);
        self.drain();
    }

    /// Reads and clears the violation of the PAMU, if there is one.
    pub(crate) fn take_violation(&self, pamu: usize) -> Option<Report> {
        use Register::*;
        if self.read(Pics) & pics::AV == 0 {
            return None;
        }
        let status = self.read(Avs1);
        let report = Report {
            pamu,
            status,
            status2: self.read(Avs2),
            address: self.read_pair(Avah, Aval),
            entry: self.read_pair(Poeah, Poeal),
            operation: [self.read(Poes1), self.read(Poes2)],
            udad: self.read(Udad),
        };
        self.write(Avs1, status & avs1::STATUS);
        Some(report)
    }

    /// Acknowledges the interrupt of a violation. `others` tells whether later violations raise an
    /// interrupt.
    ///
    /// Erratum A-003638: a PAMU may report violations of disabled LIODNs. A device that continues
    /// its accesses after it was disabled would raise interrupts forever.
    pub(crate) fn acknowledge(&self, others: bool) {
        let enable = if others { pics::AV_ENABLE } else { 0 };
        self.write(Register::Pics, pics::AV | enable);
    }

    /// Enables the interrupt of violations, including a pending one.
    pub(crate) fn arm(&self) {
        self.write(Register::Pics, pics::AV_ENABLE);
    }

    /// Returns whether violations raise an interrupt.
    pub fn is_armed(&self) -> bool {
        self.read(Register::Pics) & pics::AV_ENABLE != 0
    }

    /// Returns whether the PAMU is enabled.
    pub(crate) fn is_on(&self) -> bool {
        self.read(Register::Pc) & pc::PE != 0
    }
}
