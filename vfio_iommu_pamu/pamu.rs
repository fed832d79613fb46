// SPDX-License-Identifier: GPL-2.0

//! The operations on a PAMU through its registers: violations and their interrupt. `abi.rs` enables
//! and disables the PAMU.

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
    violation::Report, //
};

impl dyn Pamu + '_ {
    /// Reads a pair of registers as a 64-bit value.
    fn read_pair(&self, high: Register, low: Register) -> u64 {
        u64::from(self.read(high)) << 32 | u64::from(self.read(low))
    }

    /// Returns the LIODN of the violation that the PAMU has recorded, if there is one.
    pub(crate) fn recorded_liodn(&self) -> Option<u32> {
        let pending = self.read(Register::Pics) & pics::AV != 0;
        let status = self.read(Register::Avs1);
        (pending && status & avs1::AV != 0).then_some(status >> avs1::LIODN_SHIFT)
    }

    /// Reads and clears the violation of the PAMU, if there is one. Acknowledges an interrupt without
    /// a violation.
    pub(crate) fn take_violation(&self, pamu: usize) -> Option<Report> {
        use Register::*;
        if self.read(Pics) & pics::AV == 0 {
            return None;
        }
        let status = self.read(Avs1);
        if status & avs1::AV == 0 {
            self.acknowledge(self.is_armed());
            return None;
        }
        let report = Report {
            pamu,
            status,
            status2: self.read(Avs2),
            address: self.read_pair(Avah, Aval),
            entry: self.read_pair(Poeah, Poeal),
            operation: [self.read(Poes1), self.read(Poes2)],
            udad: self.read(Udad),
        };
        self.clear_avs1(status & avs1::STATUS);
        Some(report)
    }

    /// Acknowledges the interrupt of a violation. `others` tells whether later violations raise an
    /// interrupt.
    ///
    /// Erratum A-003638: a PAMU may report violations of disabled LIODNs. A device that continues
    /// its accesses after it was disabled would raise interrupts forever.
    pub(crate) fn acknowledge(&self, others: bool) {
        let enable = if others { pics::AV_ENABLE } else { 0 };
        self.write_pics(pics::AV | enable);
    }

    /// Enables the interrupt of violations, including a pending one.
    pub(crate) fn unmask_interrupts(&self) {
        self.write_pics(pics::AV_ENABLE);
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
