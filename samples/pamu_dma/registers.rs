// SPDX-License-Identifier: GPL-2.0

//! The registers of an engine. A program accesses 4 or 8 aligned bytes at a time; they are
//! little-endian.
//!
//! | Offset | Name          | Bits |    |                                                           |
//! |--------|---------------|------|----|-----------------------------------------------------------|
//! | 0x00   | `COMMAND`     | 32   | rw | a write runs a [`command`], and returns when it is done   |
//! | 0x04   | `STATUS`      | 32   | rw | 0, or the error number of the last command                |
//! | 0x08   | `SOURCE`      | 64   | rw | device address                                            |
//! | 0x10   | `DESTINATION` | 64   | rw | device address                                            |
//! | 0x18   | `LENGTH`      | 32   | rw | number of bytes                                           |
//! | 0x1c   | `LIODN`       | 32   | rw | LIODN to use, for tests; after a reset that of the engine |
//! | 0x20   | `MSI_ADDRESS` | 64   | ro | device address of the doorbell; 0: no interrupt           |
//! | 0x28   | `MSI_DATA`    | 32   | ro | value that raises the interrupt                           |
//! | 0x30   | `DATA`        | 64   | rw | 8 bytes that were read or will be written                 |
//!
//! `VFIO_DEVICE_SET_IRQS` sets the read-only registers. Writes to them are ignored.

use core::ops::Range;

use kernel::prelude::*;

pub(crate) const COMMAND: usize = 0x00;
pub(crate) const STATUS: usize = 0x04;
pub(crate) const SOURCE: usize = 0x08;
pub(crate) const DESTINATION: usize = 0x10;
pub(crate) const LENGTH: usize = 0x18;
pub(crate) const LIODN: usize = 0x1c;
pub(crate) const MSI_ADDRESS: usize = 0x20;
pub(crate) const MSI_DATA: usize = 0x28;
pub(crate) const DATA: usize = 0x30;

/// The size of the registers in bytes.
pub(crate) const SIZE: usize = 0x38;

/// The values of [`COMMAND`].
pub(crate) mod command {
    /// `DATA` = 8 bytes at `SOURCE`.
    pub(crate) const READ: u32 = 1;
    /// 8 bytes at `DESTINATION` = `DATA`.
    pub(crate) const WRITE: u32 = 2;
    /// Copies `LENGTH` bytes from `SOURCE` to `DESTINATION`.
    pub(crate) const COPY: u32 = 3;
    /// Writes `MSI_DATA` to `MSI_ADDRESS`.
    pub(crate) const INTERRUPT: u32 = 4;
}

/// The values of the registers, as words of 32 bits.
pub(crate) struct Registers([u32; SIZE / 4]);

/// The words of an access.
pub(crate) struct Words(Range<usize>);

impl Words {
    /// Returns the words that `count` bytes at `pos` consist of.
    ///
    /// # Errors
    ///
    /// `EINVAL` unless these are 4 or 8 aligned bytes of the registers.
    pub(crate) fn new(pos: i64, count: usize) -> Result<Self> {
        let pos = usize::try_from(pos)?;
        if !matches!(count, 4 | 8) || pos % count != 0 || pos > SIZE - count {
            return Err(EINVAL);
        }
        Ok(Self(pos / 4..(pos + count) / 4))
    }

    /// Returns the number of words.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns whether the first word is that at offset `register`.
    pub(crate) fn start_at(&self, register: usize) -> bool {
        self.0.start == register / 4
    }
}

impl Registers {
    /// Returns the registers of an engine without an interrupt.
    pub(crate) fn new(liodn: u32) -> Self {
        let mut this = Self([0; SIZE / 4]);
        this.set32(LIODN, liodn);
        this
    }

    pub(crate) fn get32(&self, register: usize) -> u32 {
        self.0[register / 4]
    }

    pub(crate) fn get64(&self, register: usize) -> u64 {
        u64::from(self.get32(register + 4)) << 32 | u64::from(self.get32(register))
    }

    pub(crate) fn set32(&mut self, register: usize, value: u32) {
        self.0[register / 4] = value;
    }

    pub(crate) fn set64(&mut self, register: usize, value: u64) {
        self.set32(register, value as u32);
        self.set32(register + 4, (value >> 32) as u32);
    }

    /// Reads words for the program.
    pub(crate) fn read(&self, words: &Words) -> &[u32] {
        &self.0[words.0.clone()]
    }

    /// Writes words for the program, unless they are read-only. `values` has one value for each
    /// word.
    pub(crate) fn write(&mut self, words: &Words, values: &[u32]) {
        if !(MSI_ADDRESS / 4..DATA / 4).contains(&words.0.start) {
            self.0[words.0.clone()].copy_from_slice(values);
        }
    }
}
