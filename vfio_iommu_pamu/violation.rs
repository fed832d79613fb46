// SPDX-License-Identifier: GPL-2.0

//! What a PAMU says about a transaction that it refused.

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
    system::Shared,
    tables::writer::Shut, //
};

/// The registers of a PAMU after a violation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    /// The number of the PAMU.
    pub(crate) pamu: usize,
    /// AVS1: what was violated, and by which LIODN.
    pub(crate) status: u32,
    /// AVS2.
    pub(crate) status2: u32,
    /// AVA: the device address.
    pub(crate) address: u64,
    /// POEA: the physical address of the LIODN's entry.
    pub(crate) entry: u64,
    /// POES1 and POES2.
    pub(crate) operation: [u32; 2],
    /// UDAD.
    pub(crate) udad: u32,
}

impl Report {
    /// Who it was.
    pub(crate) fn liodn(&self) -> u32 {
        self.status >> avs1::LIODN_SHIFT
    }

    /// What was violated.
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

/// What was violated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The LIODN has no valid entry.
    Liodn,
    /// The address isn't in the aperture, its window is off, or it lies behind what is mapped there.
    Window,
    /// The window doesn't permit that.
    Permission,
    /// The operation can't be translated.
    Operation,
    /// The gate is closed.
    Gate,
    /// The domain doesn't permit it.
    Domain,
    /// The PAMU didn't say.
    Unknown,
}

impl Cause {
    /// The cause in an AVS1.
    pub(crate) fn of(status: u32) -> Self {
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
            Self::Liodn => "the LIODN is off",
            Self::Window => "nothing is mapped there",
            Self::Permission => "the window does not permit the access",
            Self::Operation => "the operation cannot be translated",
            Self::Gate => "the PAMU is off",
            Self::Domain => "the domain does not permit the access",
            Self::Unknown => "no cause given",
        })
    }
}

/// The violation that stopped a LIODN.
#[derive(Clone, Copy)]
pub(crate) struct Violation {
    /// Who it was.
    pub(crate) liodn: u32,
    /// The device address.
    pub(crate) address: u64,
    /// AVS1.
    pub(crate) status: u32,
    /// What was violated.
    pub(crate) cause: Cause,
    /// The number of the PAMU.
    pub(crate) pamu: usize,
    /// When it was noticed.
    pub(crate) time: Instant<Monotonic>,
}

impl Violation {
    /// The violation in a report that came now.
    pub(crate) fn new(report: &Report) -> Self {
        Self {
            liodn: report.liodn(),
            address: report.address,
            status: report.status,
            cause: report.cause(),
            pamu: report.pamu,
            time: Instant::now(),
        }
    }

    /// Whether the LIODN, whose entry this is, has to be turned off now.
    ///
    /// Not if it is off; nor if all it did was to access anything while it was off, and it is on by now.
    pub(crate) fn stops(&self, entry: &Shared<'_>) -> bool {
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
pub(crate) struct History {
    last: [Option<Violation>; HISTORY],
    count: usize,
}

/// How many violations are remembered.
const HISTORY: usize = 32;

impl History {
    /// Remembers a violation, and forgets the oldest one.
    pub(crate) fn add(&mut self, violation: Violation) {
        self.last[self.count % HISTORY] = Some(violation);
        self.count += 1;
    }

    /// How many there were.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Those that are remembered, the oldest one first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Violation> {
        let (after, before) = self.last.split_at(self.count % HISTORY);
        Iterator::chain(before.iter(), after).flatten()
    }
}
