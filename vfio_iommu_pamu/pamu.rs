// SPDX-License-Identifier: GPL-2.0

//! What there is to do with any PAMU, over its registers.

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

/// A PAMU: its page of registers.
///
/// The methods don't sleep.
pub(crate) trait Pamu: Send + Sync {
    /// The value of a register.
    fn read(&self, register: Register) -> u32;

    /// Gives a register a value.
    fn write(&self, register: Register, value: u32);

    /// Waits until everything that was written to the tables before is what transactions meet.
    ///
    /// Hardware has no command for that: its caches of entries see writes to memory, and whoever
    /// turns a device off has to see to it that the device is quiet.
    fn drain(&self);
}

impl dyn Pamu + '_ {
    /// A register pair.
    fn read_pair(&self, high: Register, low: Register) -> u64 {
        u64::from(self.read(high)) << 32 | u64::from(self.read(low))
    }

    fn write_pair(&self, high: Register, low: Register, value: u64) {
        self.write(high, (value >> 32) as u32);
        self.write(low, value as u32);
    }

    /// Tells the PAMU its tables and lets it work.
    ///
    /// Erratum A-005982: the cache of operation mappings is turned on before the addresses of the
    /// tables are written.
    pub(crate) fn enable(&self, tables: &Tables) {
        use Register::*;
        self.write(Pc, self.read(Pc) | pc::OCE);
        for (table, registers) in [
            (Table::Primaries, [Ppbah, Ppbal, Pplah, Pplal]),
            (Table::Secondaries, [Spbah, Spbal, Splah, Splal]),
            (Table::Mappings, [Obah, Obal, Olah, Olal]),
        ] {
            let (base, limit) = tables.bounds(table);
            self.write_pair(registers[0], registers[1], base);
            self.write_pair(registers[2], registers[3], limit);
        }
        // What a boot loader's use of the PAMU left behind isn't about anybody's entry.
        self.write(Avs1, avs1::STATUS);
        self.write(Pics, pics::AV_ENABLE);
        self.write(Pc, pc::PE | pc::OCE | pc::SPCC | pc::PPCC);
        self.drain();
    }

    /// Closes the gate: nothing passes the PAMU any more, and it reads no tables.
    pub(crate) fn disable(&self) {
        self.write(Register::Pics, 0);
        self.write(Register::Pc, pc::PGC);
        self.drain();
    }

    /// Takes note of a violation and clears it, if there is one.
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

    /// Acknowledges the interrupt of a violation, and says whether others shall interrupt.
    ///
    /// Erratum A-003638: violations may be reported of LIODNs that are off. A device that goes on
    /// after it was turned off would interrupt for ever.
    pub(crate) fn acknowledge(&self, others: bool) {
        let enable = if others { pics::AV_ENABLE } else { 0 };
        self.write(Register::Pics, pics::AV | enable);
    }

    /// Has violations interrupt, what is pending included.
    pub(crate) fn arm(&self) {
        self.write(Register::Pics, pics::AV_ENABLE);
    }

    /// Whether violations interrupt.
    pub(crate) fn is_armed(&self) -> bool {
        self.read(Register::Pics) & pics::AV_ENABLE != 0
    }

    /// Whether it works.
    pub(crate) fn is_on(&self) -> bool {
        self.read(Register::Pc) & pc::PE != 0
    }
}
