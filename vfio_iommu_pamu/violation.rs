// SPDX-License-Identifier: GPL-2.0

//! Access violations: the report of a PAMU about a transaction that it refused, the log of the last
//! violations, and the ioctls ([`ioctl`]).

mod ioctl;

use kernel::{
    fmt,
    prelude::*,
    time::{
        Instant,
        Monotonic, //
    }, //
};

use crate::{
    registers::avs1,
    system::SharedEntry,
    tables::writer::Shut, //
};

/// The registers of a PAMU after a violation.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// The number of the PAMU.
    pub pamu: usize,
    /// AVS1: the cause of the violation, and the LIODN.
    pub status: u32,
    /// AVS2.
    pub status2: u32,
    /// AVA: the device address.
    pub address: u64,
    /// POEA: the physical address of the LIODN's entry.
    pub entry: u64,
    /// POES1 and POES2.
    pub operation: [u32; 2],
    /// UDAD.
    pub udad: u32,
}

impl Report {
    /// Returns the LIODN.
    pub(crate) fn liodn(&self) -> u32 {
        self.status >> avs1::LIODN_SHIFT
    }

    /// Returns the cause.
    pub(crate) fn cause(&self) -> Cause {
        Cause::of(self.status)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_fmt(fmt!(
            "access violation of LIODN {} at {:#x}: {} (PAMU {}, AVS1 {:#x}, AVS2 {:#x}, \
             POES {:#x} {:#x}, UDAD {:#x}, entry at {:#x})",
            self.liodn(),
            self.address,
            self.cause(),
            self.pamu,
            self.status,
            self.status2,
            self.operation[0],
            self.operation[1],
            self.udad,
            self.entry
        ))
    }
}

/// The cause of a violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The LIODN has no valid entry.
    Liodn,
    /// The address isn't in the aperture, its window is clear, or it lies after the block of the
    /// window.
    Window,
    /// The window doesn't permit the access.
    Permission,
    /// The operation can't be translated.
    Operation,
    /// The gate is closed.
    Gate,
    /// The domain doesn't permit the access.
    Domain,
    /// The PAMU didn't report a cause.
    Unknown,
}

impl Cause {
    /// Returns the cause in an AVS1.
    pub fn of(status: u32) -> Self {
        [
            (avs1::GCV, Self::Gate),
            (avs1::LAV, Self::Liodn),
            (avs1::WAV, Self::Window),
            (avs1::APV, Self::Permission),
            (avs1::OTV, Self::Operation),
            (avs1::PDV, Self::Domain),
        ]
        .iter()
        .find(|(mask, _)| status & mask != 0)
        .map_or(Self::Unknown, |(_, cause)| *cause)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Liodn => "the LIODN is disabled",
            Self::Window => "nothing is mapped at this address",
            Self::Permission => "the window does not permit the access",
            Self::Operation => "the operation cannot be translated",
            Self::Gate => "the PAMU is disabled",
            Self::Domain => "the domain does not permit the access",
            Self::Unknown => "unknown cause",
        })
    }
}

/// The violation that stopped a LIODN.
#[derive(Clone, Copy)]
pub struct Violation {
    /// The LIODN.
    pub liodn: u32,
    /// The device address.
    pub address: u64,
    /// AVS1.
    pub status: u32,
    /// The cause.
    pub cause: Cause,
    /// The number of the PAMU.
    pub pamu: usize,
    /// The time of the report.
    pub time: Instant<Monotonic>,
}

impl Violation {
    /// Returns the violation of a report that was just received.
    pub fn new(report: &Report) -> Self {
        Self {
            liodn: report.liodn(),
            address: report.address,
            status: report.status,
            cause: report.cause(),
            pamu: report.pamu,
            time: Instant::now(),
        }
    }

    /// Returns whether the violation stops the LIODN with this entry now.
    ///
    /// It doesn't if the LIODN is disabled. It doesn't either if the violation is an access that
    /// was made while the LIODN was disabled, and the LIODN is enabled by now.
    pub fn stops(&self, entry: &SharedEntry<'_>) -> bool {
        entry.is_open(Shut::Entry) && self.cause != Cause::Liodn
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_fmt(fmt!(
            "LIODN {} at {:#x}: {} (PAMU {}, AVS1 {:#x}), {} s ago",
            self.liodn,
            self.address,
            self.cause,
            self.pamu,
            self.status,
            self.time.elapsed().as_nanos() / 1_000_000_000
        ))
    }
}

/// The last violations of all LIODNs.
#[derive(Default)]
pub struct History {
    last: [Option<Violation>; HISTORY],
    /// The total number. A `usize` of 32 bits could overflow: a device can cause a hundred a second.
    count: u64,
}

/// The number of violations that are kept.
const HISTORY: usize = 32;

impl History {
    /// Adds a violation, in place of the oldest one.
    pub(crate) fn add(&mut self, violation: Violation) {
        let next = self.next();
        self.last[next] = Some(violation);
        self.count += 1;
    }

    /// Returns the place of the next violation.
    fn next(&self) -> usize {
        (self.count % HISTORY as u64) as usize
    }

    /// Returns the total number of violations.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Iterates over the violations that are kept, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Violation> {
        let (after, before) = self.last.split_at(self.next());
        Iterator::chain(before.iter(), after).flatten()
    }
}

#[kunit_tests(vfio_pamu_violation)]
mod tests {
    use super::*;

    #[test]
    fn history_goes_on_after_32_bits() {
        let mut history = History {
            count: u64::from(u32::MAX) - 1,
            ..History::default()
        };
        for address in 0..4 {
            history.add(Violation {
                liodn: 1,
                address,
                status: avs1::AV,
                cause: Cause::Window,
                pamu: 0,
                time: Instant::now(),
            });
        }
        assert_eq!(history.count(), (1 << 32) + 2);
        assert!(history.iter().map(|violation| violation.address).eq(0..4));
    }
}
