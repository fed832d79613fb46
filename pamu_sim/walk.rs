// SPDX-License-Identifier: GPL-2.0

//! The translation of a transaction by a PAMU, modelled on the hardware.
//!
//! This module doesn't share code with the writers of entries. It takes the bits from the words by
//! the positions that the hardware defines. So a wrong bit on one side shows up on the other.

use kernel::prelude::*;

use vfio_iommu_pamu::registers::{
    avs1,
    pc,
    Register, //
};

/// The memory that a PAMU reads its tables from.
pub(super) trait TableMemory {
    /// Returns the big-endian word at a physical address, or `None` if there is no memory.
    fn load(&self, phys: u64) -> Option<u32>;
}

/// A transaction that a device requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transaction {
    /// The LIODN of the device.
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

/// Operations that read, by their codes: reads, enhanced reads, and atomic operations.
const READING: u16 = 1 << 0 | 1 << 2 | 1 << 5 | ATOMIC;

/// Operations that write: writes, enhanced writes, directives, and atomic operations.
const WRITING: u16 = 1 << 1 | 1 << 3 | 1 << 4 | 1 << 6 | 1 << 7 | ATOMIC;

/// Operations that read and write at once.
const ATOMIC: u16 = 0xf << 12;

/// The translated transaction. It can't be copied, so it isn't used after the PAMU was unlocked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Translated {
    phys: u64,
    /// The operation's code. Memory treats all operations that read alike, and all that write.
    operation: u8,
}

impl Translated {
    /// Returns the physical address.
    pub(crate) fn phys(&self) -> u64 {
        self.phys
    }
}

/// The reason why a transaction is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The bits of AVS1, without the LIODN.
    pub(crate) status: u32,
    /// The physical address of the entry that refused it; 0 if there is none.
    pub(crate) entry: u64,
}

/// The sub-codes of AVS1 that this model reports. Apart from that of a LIODN outside the table, the
/// manual's sub-codes are not known. The driver only checks which field isn't zero.
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

/// An entry at a physical address, fetched word by word. The second word is fetched first: it
/// contains the valid bit, and writers rely on this order.
struct Fetched {
    phys: u64,
    words: [u32; 8],
}

impl Fetched {
    fn new(memory: &impl TableMemory, phys: u64) -> Option<Self> {
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

    /// Returns the base-2 logarithm of the aperture's size.
    fn aperture_log2(&self) -> u32 {
        (self.words[1] >> 6 & 0x3f) + 1
    }

    /// Returns the base-2 logarithm of the block's size.
    fn block_log2(&self) -> u32 {
        (self.words[5] >> 6 & 0x3f) + 1
    }

    /// Returns the base-2 logarithm of the number of windows.
    fn windows_log2(&self) -> u32 {
        match self.words[1] & 0x20 {
            0 => 0,
            _ => (self.words[3] >> 4 & 0xf) + 1,
        }
    }
}

/// The registers that the walk reads.
pub(super) trait Registers {
    /// Returns the value of a register.
    fn get(&self, register: Register) -> u32;

    /// Returns the value of a pair of registers.
    fn pair(&self, high: Register, low: Register) -> u64 {
        u64::from(self.get(high)) << 32 | u64::from(self.get(low))
    }
}

/// Returns `value` shifted right by `bits`, which may be 64 or more.
fn shr(value: u64, bits: u32) -> u64 {
    value.checked_shr(bits).unwrap_or(0)
}

/// Translates a transaction.
pub(super) fn translate(
    registers: &impl Registers,
    memory: &impl TableMemory,
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
        // The last check is for an entry that belongs to another LIODN or isn't a secondary entry.
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

/// Translates an address `offset` bytes into the block of `entry`.
fn finish(
    registers: &impl Registers,
    memory: &impl TableMemory,
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
        // The sum wraps, whatever the entry contains.
        1 => block.wrapping_add(offset),
        _ => return Err(entry.fault(avs1::PDV)),
    };
    let operation = map_operation(registers, memory, entry, transaction.operation & 0xf);
    Ok(Translated {
        phys,
        operation: operation.ok_or(entry.fault(code::BAD_OPERATION))?,
    })
}

/// Returns the mapped operation, or `None` if the entry doesn't map it.
fn map_operation(
    registers: &impl Registers,
    memory: &impl TableMemory,
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

#[kunit_tests(pamu_sim_walk)]
mod tests {
    use super::*;

    /// The location of the tables in the memory of these tests: 4 primary entries, 4 secondary
    /// entries, 2 rows.
    const PRIMARIES: u64 = 0x1000;
    const SECONDARIES: u64 = 0x2000;
    const ROWS: u64 = 0x3000;

    /// The words of memory that aren't zero.
    struct Words<'a>(&'a [(u64, u32)]);

    impl TableMemory for Words<'_> {
        fn load(&self, phys: u64) -> Option<u32> {
            let found = self.0.iter().find(|(at, _)| *at == phys);
            Some(found.map_or(0, |(_, word)| *word))
        }
    }

    struct On;

    impl Registers for On {
        fn get(&self, register: Register) -> u32 {
            match register {
                Register::Pc => pc::PE,
                Register::Ppbal => PRIMARIES as u32,
                Register::Pplal => PRIMARIES as u32 + 4 * 64,
                Register::Spbal => SECONDARIES as u32,
                Register::Splal => SECONDARIES as u32 + 4 * 64,
                Register::Obal => ROWS as u32,
                Register::Olal => ROWS as u32 + 2 * 128,
                _ => 0,
            }
        }
    }

    fn walk(words: &[(u64, u32)], operation: u8, address: u64) -> Result<(u64, u8), u32> {
        let transaction = Transaction {
            liodn: 1,
            operation,
            address,
            len: 4,
        };
        let result = translate(&On, &Words(words), &transaction);
        result
            .map(|t| (t.phys, t.operation))
            .map_err(|fault| fault.status & !avs1::AV)
    }

    const ENTRY: u64 = PRIMARIES + 64;

    /// 1 MiB at 16 MiB, one window to 0x5_0000_0000, all accesses.
    const UNDIVIDED: [(u64, u32); 3] = [
        (ENTRY + 4, 0x0100_0000 | 0x13 << 6 | 0x18 | 1),
        (ENTRY + 12, 1 << 2),
        (ENTRY + 16, 0x5),
    ];

    #[test]
    fn one_window() {
        assert_eq!(
            walk(&UNDIVIDED, READ, 0x0100_0010),
            Ok((0x5_0000_0010, READ))
        );
        assert_eq!(
            walk(&UNDIVIDED, WRITE, 0x010f_fffc),
            Ok((0x5_000f_fffc, WRITE))
        );
        // The last bytes exceed the aperture.
        assert_eq!(
            walk(&UNDIVIDED, WRITE, 0x010f_fffd),
            Err(code::OUTSIDE_APERTURE)
        );
        assert_eq!(
            walk(&UNDIVIDED, READ, 0x0110_0000),
            Err(code::OUTSIDE_APERTURE)
        );
        assert_eq!(
            walk(&UNDIVIDED, READ, 0x00ff_fffc),
            Err(code::OUTSIDE_APERTURE)
        );
        assert_eq!(
            walk(&UNDIVIDED, READ, u64::MAX),
            Err(code::OUTSIDE_APERTURE)
        );
        assert_eq!(walk(&[], READ, 0), Err(code::ENTRY_INVALID));
    }

    /// 1 MiB at 0, 4 windows, spaaces starting at entry 1.
    const DIVIDED: [(u64, u32); 9] = [
        (ENTRY + 4, 0x13 << 6 | 0x20 | 0x8 | 1),
        (ENTRY + 12, 1 << 4 | 1 << 2),
        (ENTRY + 20, 0x8000_0000 | 0xb << 6),
        (ENTRY + 24, 1),
        // Window 1: 64 KiB, write access. Window 2: an entry of another LIODN. Window 3: no entry.
        (SECONDARIES + 64 + 4, 1 << 16 | 0x10 | 2 | 1),
        (SECONDARIES + 64 + 12, 1 << 2),
        (SECONDARIES + 64 + 20, 0x4000_0000 | 0xf << 6),
        (SECONDARIES + 128 + 4, 2 << 16 | 0x18 | 2 | 1),
        (SECONDARIES + 128 + 20, 0xf << 6),
    ];

    #[test]
    fn windows() {
        assert_eq!(walk(&DIVIDED, READ, 0x10), Ok((0x8000_0010, READ)));
        assert_eq!(walk(&DIVIDED, READ, 0xffd), Err(code::BEHIND_BLOCK));
        assert_eq!(walk(&DIVIDED, WRITE, 0x10), Err(code::NO_UPDATE));
        assert_eq!(walk(&DIVIDED, WRITE, 0x4_0010), Ok((0x4000_0010, WRITE)));
        assert_eq!(walk(&DIVIDED, READ, 0x4_0010), Err(code::NO_QUERY));
        assert_eq!(walk(&DIVIDED, WRITE, 0x5_0000), Err(code::BEHIND_BLOCK));
        assert_eq!(walk(&DIVIDED, READ, 0x8_0000), Err(avs1::PDV));
        assert_eq!(walk(&DIVIDED, READ, 0xc_0000), Err(code::WINDOW_INVALID));
    }

    #[test]
    fn operations() {
        let with = |mode: u32, word: u32, operation: u8| {
            let mut words = [(0, 0); 6];
            words[..3].copy_from_slice(&UNDIVIDED);
            words[1].1 |= mode;
            words[3] = (ENTRY + 28, word);
            // Row 1: read to 0x18, write to 0x1d; directive 0 (4) to 0x10.
            words[4] = (ROWS + 128, 0x989d_0000);
            words[5] = (ROWS + 132, 0x9000_0000);
            walk(&words, operation, 0x0100_0000).map(|(_, operation)| operation)
        };
        assert_eq!(with(0, 0, 0xc), Ok(0xc));
        assert_eq!(with(1, 0x0098_819d, READ), Ok(0x18));
        assert_eq!(with(1, 0x0098_819d, WRITE), Ok(0x1d));
        assert_eq!(with(1, 0x0098_819d, 4), Err(code::BAD_OPERATION));
        assert_eq!(with(1, 0x0098_0000, WRITE), Err(code::BAD_OPERATION));
        assert_eq!(with(2, 1, READ), Ok(0x18));
        assert_eq!(with(2, 1, WRITE), Ok(0x1d));
        assert_eq!(with(2, 1, 4), Ok(0x10));
        assert_eq!(with(2, 1, 5), Err(code::BAD_OPERATION));
        // A row that was never written, and one after the table.
        assert_eq!(with(2, 0, READ), Err(code::BAD_OPERATION));
        assert_eq!(with(2, 2, READ), Err(code::BAD_OPERATION));
    }
}
