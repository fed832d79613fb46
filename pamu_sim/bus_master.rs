// SPDX-License-Identifier: GPL-2.0

//! A device that does DMA through a software PAMU.

use kernel::{
    fmt,
    prelude::*,
    sync::Arc, //
};

use vfio_iommu_pamu::violation::Cause;

use crate::{
    abi::Physical,
    machine::Machine,
    walk::{
        Fault,
        Transaction,
        READ,
        WRITE, //
    }, //
};

/// The reason why an access failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The PAMU refused it.
    Violation {
        /// The device address that was refused.
        address: u64,
        /// The status bits: AVS1 without the LIODN.
        status: u32,
    },
    /// The PAMU permitted the access, but there is no memory at the translated address.
    NoMemory {
        /// The device address.
        address: u64,
    },
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violation { address, status } => f.write_fmt(fmt!(
                "access violation at {address:#x}: {}",
                Cause::of(*status)
            )),
            Self::NoMemory { address } => f.write_fmt(fmt!("no memory behind {address:#x}")),
        }
    }
}

impl From<Denied> for Error {
    fn from(_: Denied) -> Self {
        EFAULT
    }
}

/// A bus master: performs the memory accesses of a device through the PAMU that the device is
/// behind. Its functions may sleep.
pub struct BusMaster {
    machine: Arc<Machine>,
    pamu: usize,
    liodn: u16,
}

/// The maximum size of a transaction in bytes. No transaction crosses a multiple of it.
const PIECE: u64 = 4096;

impl BusMaster {
    /// Returns a master for a device with this LIODN.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the machine has no software PAMUs.
    pub fn with_liodn(liodn: u16) -> Result<Self> {
        Ok(Self::on(Machine::get().ok_or(ENODEV)?, liodn))
    }

    /// Returns a master for a device of this machine, behind one of its PAMUs.
    pub(crate) fn on(machine: Arc<Machine>, liodn: u16) -> Self {
        let pamu = usize::from(liodn).checked_rem(machine.pamu_count());
        Self {
            machine,
            pamu: pamu.unwrap_or(0),
            liodn,
        }
    }

    fn transaction(&self, operation: u8, address: u64, len: usize) -> Transaction {
        Transaction {
            liodn: self.liodn,
            operation,
            address,
            len: len as u64,
        }
    }

    /// Reads starting at `address`, split into transactions as on a bus.
    ///
    /// # Errors
    ///
    /// The reason of the failure. The data before the failing address was read.
    pub fn read(&self, mut address: u64, mut data: &mut [u8]) -> Result<(), Denied> {
        while !data.is_empty() {
            let (piece, rest) = data.split_at_mut(piece(address, data.len()));
            let transaction = self.transaction(READ, address, piece.len());
            let done = self.machine.access(self.pamu, &transaction, |from| {
                self.machine.banks().read(from, piece) || Physical.read(from, piece)
            });
            self.result(address, done)?;
            address = address.wrapping_add(transaction.len);
            data = rest;
        }
        Ok(())
    }

    /// Writes starting at `address`, split into transactions as on a bus.
    ///
    /// # Errors
    ///
    /// The reason of the failure. The data before the failing address was written.
    pub fn write(&self, mut address: u64, mut data: &[u8]) -> Result<(), Denied> {
        while !data.is_empty() {
            let (piece, rest) = data.split_at(piece(address, data.len()));
            let transaction = self.transaction(WRITE, address, piece.len());
            let done = self.machine.access(self.pamu, &transaction, |to| {
                self.machine.banks().write(to, piece) || Physical.write(to, piece)
            });
            self.result(address, done)?;
            address = address.wrapping_add(transaction.len);
            data = rest;
        }
        Ok(())
    }

    fn result(&self, address: u64, done: Result<bool, Fault>) -> Result<(), Denied> {
        match done {
            Ok(true) => Ok(()),
            Ok(false) => Err(Denied::NoMemory { address }),
            Err(fault) => Err(Denied::Violation {
                address,
                status: fault.status,
            }),
        }
    }
}

/// Returns how much of `len` bytes at `address` fits into one transaction.
fn piece(address: u64, len: usize) -> usize {
    len.min((PIECE - address % PIECE) as usize)
}
