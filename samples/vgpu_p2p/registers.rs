// SPDX-License-Identifier: GPL-2.0

//! The registers, in BAR 0. All have 32 bits, and must be accessed as a whole.
//!
//! | Offset | Name           |    |                                                                  |
//! |--------|----------------|----|------------------------------------------------------------------|
//! | 0x00   | `ID`           | ro | `VGPU` in ASCII                                                  |
//! | 0x04   | `MEMORY_SIZE`  | ro | bytes of memory                                                  |
//! | 0x08   | `PASID`        | ro | all ones: none                                                   |
//! | 0x0c   | `LINK`         | ro | number of the link to its peers; all ones: none                  |
//! | 0x10   | `PEERS`        | ro | number of devices in its group, including itself                 |
//! | 0x20   | `ADDRESS`      | rw | iova of the program's memory, low half                           |
//! | 0x24   | `ADDRESS_HIGH` | rw | its high half                                                    |
//! | 0x28   | `OFFSET`       | rw | offset in the device's memory                                    |
//! | 0x2c   | `LENGTH`       | rw | number of bytes                                                  |
//! | 0x30   | `PEER`         | rw | UUID of the peer, 16 bytes in the order of its text              |
//! | 0x40   | `PEER_OFFSET`  | rw | offset in the peer's memory                                      |
//! | 0x50   | `COMMAND`      | rw | runs a [command](crate::engine::Command); shows a pending one    |
//! | 0x54   | `STATUS`       | ro | [status](crate::engine::Status) of the last command              |
//! | 0x58   | `COMPLETED`    | ro | number of completed commands since the last reset                |

use kernel::prelude::*;

use vfio_mdev::{
    Access,
    Instance,
    Width, //
};

use crate::{
    engine::{
        Command,
        Engine, //
    },
    Vgpu, //
};

/// The size of the register region in bytes.
pub(crate) const SIZE: u64 = 4096;

const ID: u64 = 0x00;
const MEMORY_SIZE: u64 = 0x04;
const PASID: u64 = 0x08;
const LINK: u64 = 0x0c;
const PEERS: u64 = 0x10;
const OPERANDS: u64 = 0x20;
const OPERANDS_END: u64 = OPERANDS + 4 * Operands::COUNT as u64;
const COMMAND: u64 = 0x50;
const STATUS: u64 = 0x54;
const COMPLETED: u64 = 0x58;

/// The value of a register for something that does not exist.
const NONE: u32 = u32::MAX;

/// The operand registers of a command.
#[derive(Clone, Copy, Default)]
pub(crate) struct Operands(pub(crate) [u32; Self::COUNT]);

impl Operands {
    /// The number of operand registers.
    pub(crate) const COUNT: usize = 9;

    /// Returns the iova of the program's memory.
    pub(crate) fn address(&self) -> u64 {
        u64::from(self.0[1]) << 32 | u64::from(self.0[0])
    }

    /// Returns the offset in the device's memory.
    pub(crate) fn offset(&self) -> usize {
        self.0[2] as usize
    }

    /// Returns the number of bytes.
    pub(crate) fn length(&self) -> usize {
        self.0[3] as usize
    }

    /// Returns the UUID of the peer.
    pub(crate) fn peer(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        for (part, word) in bytes.chunks_exact_mut(4).zip(&self.0[4..8]) {
            part.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Returns the offset in the peer's memory.
    pub(crate) fn peer_offset(&self) -> usize {
        self.0[8] as usize
    }
}

/// Returns the value of `COMMAND` for a pending command.
pub(crate) fn pending(command: Option<Command>) -> u32 {
    command.map_or(0, Command::as_register)
}

/// Returns the index of the operand at an offset.
fn operand(offset: u64) -> usize {
    ((offset - OPERANDS) / 4) as usize
}

/// Reads a register. Offsets without a register read as zero.
///
/// # Errors
///
/// `EINVAL` for an access to a part of a register.
pub(crate) fn read(this: &Instance<Vgpu>, at: Access) -> Result<u32> {
    if at.width != Width::Long {
        return Err(EINVAL);
    }
    Ok(match at.offset {
        ID => u32::from_le_bytes(*b"VGPU"),
        MEMORY_SIZE => this.memory.len() as u32,
        PASID => this.pasid.as_ref().map_or(NONE, |pasid| pasid.id()),
        LINK => this.link.number().unwrap_or(NONE),
        PEERS => this.members(|members| members.iter().count()) as u32,
        OPERANDS..OPERANDS_END => this.engine.lock().operands.0[operand(at.offset)],
        COMMAND => pending(this.engine.lock().pending),
        STATUS => this.engine.lock().status as u32,
        COMPLETED => this.engine.lock().completed,
        _ => 0,
    })
}

/// Writes a register. Writes to read-only registers are ignored.
///
/// # Errors
///
/// `EINVAL` for an access to a part of a register.
pub(crate) fn write(this: &Instance<Vgpu>, at: Access, value: u32) -> Result {
    if at.width != Width::Long {
        return Err(EINVAL);
    }
    match at.offset {
        OPERANDS..OPERANDS_END => this.engine.lock().operands.0[operand(at.offset)] = value,
        COMMAND => Engine::start(this, Command::from_register(value)),
        _ => {}
    }
    Ok(())
}
