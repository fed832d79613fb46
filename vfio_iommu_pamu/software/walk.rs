// SPDX-License-Identifier: GPL-2.0

//! How a PAMU translates a transaction, written down from what hardware does.
//!
//! Nothing here knows how the rest of the module writes entries: the bits are picked from the words by
//! the hardware's numbers. So if one side has a bit wrong, the other one notices.

use crate::registers::{
    avs1,
    pc,
    Register, //
};

/// The memory that a PAMU reads its tables from.
pub(super) trait Memory {
    /// The big-endian word at a physical address, if there is memory.
    fn load(&self, phys: u64) -> Option<u32>;
}

/// What a device asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transaction {
    /// Who asks.
    pub(crate) liodn: u16,
    /// The operation's code, 0 to 15.
    pub(crate) operation: u8,
    /// The device address.
    pub(crate) address: u64,
    /// The number of bytes, at least 1.
    pub(crate) len: u64,
}

/// The code of a read.
pub(crate) const READ: u8 = 0;

/// The code of a write.
pub(crate) const WRITE: u8 = 1;

/// Operations that read, by their codes: reads, enhanced reads, and those that read and write.
const READING: u16 = 1 << 0 | 1 << 2 | 1 << 5 | ATOMIC;

/// Operations that write: writes, enhanced writes, directives, and those that read and write.
const WRITING: u16 = 1 << 1 | 1 << 3 | 1 << 4 | 1 << 6 | 1 << 7 | ATOMIC;

/// Operations that read and write at once.
const ATOMIC: u16 = 0xf << 12;

/// What comes out behind the PAMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Translated {
    phys: u64,
    operation: u8,
}

impl Translated {
    /// The physical address.
    pub(crate) fn phys(&self) -> u64 {
        self.phys
    }

    /// The operation's code.
    pub(crate) fn operation(&self) -> u8 {
        self.operation
    }
}

/// Why a transaction is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The bits of AVS1, but for the LIODN.
    pub(crate) status: u32,
    /// The physical address of the entry that refused it; 0 if there is none.
    pub(crate) entry: u64,
}

/// The sub-codes of AVS1 that this model gives. The manual's aren't known to us, but for that of a
/// LIODN outside of the table; only which field isn't zero means something to the rest of the module.
mod code {
    pub(super) const OUTSIDE_TABLE: u32 = 0x400;
    pub(super) const ENTRY_INVALID: u32 = 0x800;
    pub(super) const OUTSIDE_APERTURE: u32 = 0x80;
    pub(super) const WINDOW_INVALID: u32 = 0x100;
    pub(super) const BEHIND_BLOCK: u32 = 0x180;
    pub(super) const NO_QUERY: u32 = 0x8;
    pub(super) const NO_UPDATE: u32 = 0x10;
    pub(super) const BAD_OPERATION: u32 = 0x2;
}

/// The entry at a physical address, fetched word by word. Its second word, which says whether it is
/// valid, comes first, as writers rely on.
struct Fetched {
    phys: u64,
    words: [u32; 8],
}

impl Fetched {
    fn new(memory: &impl Memory, phys: u64) -> Option<Self> {
        let mut words = [0; 8];
        for word in [1, 0, 2, 3, 4, 5, 6, 7] {
            words[word] = memory.load(phys + 4 * word as u64)?;
        }
        Some(Self { phys, words })
    }

    fn fault(&self, code: u32) -> Fault {
        Fault {
            status: avs1::AV | code,
            entry: self.phys,
        }
    }

    fn valid(&self) -> bool {
        self.words[1] & 0x1 != 0
    }

    /// Logarithm of the aperture's size.
    fn aperture_log2(&self) -> u32 {
        (self.words[1] >> 6 & 0x3f) + 1
    }

    /// Logarithm of the block's size.
    fn block_log2(&self) -> u32 {
        (self.words[5] >> 6 & 0x3f) + 1
    }

    /// Logarithm of the number of windows.
    fn windows_log2(&self) -> u32 {
        match self.words[1] & 0x20 {
            0 => 0,
            _ => (self.words[3] >> 4 & 0xf) + 1,
        }
    }
}

/// Registers as the walk needs them.
pub(super) trait Registers {
    /// The value of a register.
    fn get(&self, register: Register) -> u32;

    /// The values of two neighbouring registers.
    fn pair(&self, high: Register, low: Register) -> u64 {
        u64::from(self.get(high)) << 32 | u64::from(self.get(low))
    }
}

/// `value` without its `bits` lowest bits, of which it may have no others.
fn shr(value: u64, bits: u32) -> u64 {
    value.checked_shr(bits).unwrap_or(0)
}

/// Translates a transaction.
pub(super) fn translate(
    registers: &impl Registers,
    memory: &impl Memory,
    transaction: &Transaction,
) -> Result<Translated, Fault> {
    let control = registers.get(Register::Pc);
    if control & pc::PE == 0 || control & pc::PGC != 0 {
        return Err(Fault {
            status: avs1::AV | avs1::GCV,
            entry: 0,
        });
    }
    let outside = Fault {
        status: avs1::AV | code::OUTSIDE_TABLE,
        entry: 0,
    };
    let base = registers.pair(Register::Ppbah, Register::Ppbal);
    let limit = registers.pair(Register::Pplah, Register::Pplal);
    let phys = base + u64::from(transaction.liodn) * 64;
    if phys + 64 > limit {
        return Err(outside);
    }
    let primary = Fetched::new(memory, phys).ok_or(outside)?;
    if !primary.valid() {
        return Err(primary.fault(code::ENTRY_INVALID));
    }
    let aperture = u64::from(primary.words[0]) << 32 | u64::from(primary.words[1] & 0xffff_f000);
    let offset = transaction.address.wrapping_sub(aperture);
    let last = offset.checked_add(transaction.len - 1);
    let inside = last.is_some_and(|last| shr(last, primary.aperture_log2()) == 0);
    if !inside {
        return Err(primary.fault(code::OUTSIDE_APERTURE));
    }
    if primary.words[1] & 0x20 == 0 {
        return finish(registers, memory, &primary, transaction, offset);
    }
    let window_log2 = primary
        .aperture_log2()
        .saturating_sub(primary.windows_log2());
    let index = offset >> window_log2;
    let within = offset & ((1 << window_log2) - 1);
    let secondary;
    let entry = if index == 0 {
        &primary
    } else {
        let base = registers.pair(Register::Spbah, Register::Spbal);
        let limit = registers.pair(Register::Splah, Register::Splal);
        let phys = base + (u64::from(primary.words[6]) + index - 1) * 64;
        if phys + 64 > limit {
            return Err(primary.fault(code::WINDOW_INVALID));
        }
        let fetched = Fetched::new(memory, phys);
        secondary = fetched.ok_or(primary.fault(code::WINDOW_INVALID))?;
        // The last one says whether the entry is another LIODN's, or no secondary one.
        if !secondary.valid() {
            return Err(secondary.fault(code::WINDOW_INVALID));
        }
        if secondary.words[1] & 0x2 == 0 || secondary.words[1] >> 16 != transaction.liodn.into() {
            return Err(secondary.fault(avs1::PDV));
        }
        &secondary
    };
    if entry.words[1] & 0x18 == 0 {
        return Err(entry.fault(code::WINDOW_INVALID));
    }
    if shr(within + transaction.len - 1, entry.block_log2()) != 0 {
        return Err(entry.fault(code::BEHIND_BLOCK));
    }
    finish(registers, memory, entry, transaction, within)
}

/// Translates what is `offset` bytes into the block of `entry`.
fn finish(
    registers: &impl Registers,
    memory: &impl Memory,
    entry: &Fetched,
    transaction: &Transaction,
    offset: u64,
) -> Result<Translated, Fault> {
    let operation = 1u16 << (transaction.operation & 0xf);
    if operation & READING != 0 && entry.words[1] & 0x8 == 0 {
        return Err(entry.fault(code::NO_QUERY));
    }
    if operation & WRITING != 0 && entry.words[1] & 0x10 == 0 {
        return Err(entry.fault(code::NO_UPDATE));
    }
    let block = u64::from(entry.words[4]) << 32 | u64::from(entry.words[5] & 0xffff_f000);
    let phys = match entry.words[3] >> 2 & 0x3 {
        0 => transaction.address,
        1 => block + offset,
        _ => return Err(entry.fault(avs1::PDV)),
    };
    let operation = map_operation(registers, memory, entry, transaction.operation & 0xf);
    Ok(Translated {
        phys,
        operation: operation.ok_or(entry.fault(code::BAD_OPERATION))?,
    })
}

/// What becomes of an operation, if the entry knows it.
fn map_operation(
    registers: &impl Registers,
    memory: &impl Memory,
    entry: &Fetched,
    operation: u8,
) -> Option<u8> {
    let word = entry.words[7];
    let mapped = match entry.words[3] & 0x3 {
        0 => return Some(operation),
        1 => {
            let incoming = if operation == READ {
                0
            } else {
                0x80 | operation
            };
            let [a, mapped_a, b, mapped_b] = word.to_be_bytes();
            if a == incoming {
                mapped_a
            } else if b == incoming {
                mapped_b
            } else {
                0
            }
        }
        2 => {
            let base = registers.pair(Register::Obah, Register::Obal);
            let limit = registers.pair(Register::Olah, Register::Olal);
            let row = base + u64::from(word & 0xffff) * 128;
            if row + 128 > limit {
                return None;
            }
            let bytes = memory.load(row + u64::from(operation & !3))?.to_be_bytes();
            bytes[usize::from(operation & 3)]
        }
        _ => return None,
    };
    (mapped & 0x80 != 0).then_some(mapped & 0x7f)
}
