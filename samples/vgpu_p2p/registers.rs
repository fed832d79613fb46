// SPDX-License-Identifier: GPL-2.0

//! The registers, in BAR 0. All have 32 bits, and are accessed as a whole.
//!
//! | Offset | Name           |    |                                                                  |
//! |--------|----------------|----|------------------------------------------------------------------|
//! | 0x00   | `ID`           | ro | `VGPU` in ASCII                                                  |
//! | 0x04   | `MEMORY_SIZE`  | ro | bytes of memory                                                  |
//! | 0x08   | `PASID`        | ro | all ones: none                                                   |
//! | 0x0c   | `LINK`         | ro | the number of the way to its peers; all ones: none               |
//! | 0x10   | `PEERS`        | ro | how many devices are in its group, itself included               |
//! | 0x20   | `ADDRESS`      | rw | the iova in the program's memory, low half                       |
//! | 0x24   | `ADDRESS_HIGH` | rw | its high half                                                    |
//! | 0x28   | `OFFSET`       | rw | where in the device's memory                                     |
//! | 0x2c   | `LENGTH`       | rw | how many bytes                                                   |
//! | 0x30   | `PEER`         | rw | the peer's UUID, 16 bytes in the order of its text               |
//! | 0x40   | `PEER_OFFSET`  | rw | where in the peer's memory                                       |
//! | 0x50   | `COMMAND`      | rw | does [one](crate::engine::Command); shows the one that waits     |
//! | 0x54   | `STATUS`       | ro | how the last one [ended](crate::engine::Status)                  |
//! | 0x58   | `COMPLETED`    | ro | how many commands have ended since the last reset                |

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

/// Bytes of the registers.
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

/// What a register shows of something that isn't there.
const NONE: u32 = u32::MAX;

/// The registers which tell what a command works on.
#[derive(Clone, Copy, Default)]
pub(crate) struct Operands(pub(crate) [u32; Self::COUNT]);

impl Operands {
    /// How many registers there are.
    pub(crate) const COUNT: usize = 9;

    /// The iova in the program's memory.
    pub(crate) fn address(&self) -> u64 {
        u64::from(self.0[1]) << 32 | u64::from(self.0[0])
    }

    /// Where in the device's memory.
    pub(crate) fn offset(&self) -> usize {
        self.0[2] as usize
    }

    /// How many bytes.
    pub(crate) fn length(&self) -> usize {
        self.0[3] as usize
    }

    /// The peer's UUID.
    pub(crate) fn peer(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        for (part, word) in bytes.chunks_exact_mut(4).zip(&self.0[4..8]) {
            part.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Where in the peer's memory.
    pub(crate) fn peer_offset(&self) -> usize {
        self.0[8] as usize
    }
}

/// What `COMMAND` shows of a command that waits.
pub(crate) fn pending(command: Option<Command>) -> u32 {
    command.map_or(0, Command::as_register)
}

/// Which of the operands is at an offset.
fn operand(offset: u64) -> usize {
    ((offset - OPERANDS) / 4) as usize
}

/// Reads a register. Those that are none are zero.
///
/// # Errors
///
/// `EINVAL` for a part of a register.
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

/// Writes a register; nothing happens to one that can only be read.
///
/// # Errors
///
/// `EINVAL` for a part of a register.
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
