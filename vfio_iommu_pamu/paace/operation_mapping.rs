// SPDX-License-Identifier: GPL-2.0

//! Operation mapping: the translation of a device's operations by the PAMU.
//!
//! For example, a queue manager writes with "write and allocate in the stash", where its bus only
//! knows plain writes. An entry contains two such pairs itself, or the index of a row in the
//! operation mapping table (OMT).

use super::Invalid;

/// Defines an enum of operations with their codes.
macro_rules! operations {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $code:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum $name {
            $($(#[$variant_meta])* $variant = $code,)*
        }

        impl $name {
            /// All operations.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Returns the operation with this code.
            fn from_code(code: u8) -> Option<Self> {
                Self::ALL.iter().copied().find(|operation| *operation as u8 == code)
            }
        }
    };
}

operations! {
    /// An operation that a device requests. The code is the index in a row of the OMT.
    Incoming {
        /// Read.
        Read = 0x00,
        /// Write.
        Write = 0x01,
        /// Enhanced read, type 0.
        EnhancedRead0 = 0x02,
        /// Enhanced write, type 0.
        EnhancedWrite0 = 0x03,
        /// Directive, type 0.
        Directive0 = 0x04,
        /// Enhanced read, type 1.
        EnhancedRead1 = 0x05,
        /// Enhanced write, type 1.
        EnhancedWrite1 = 0x06,
        /// Directive, type 1.
        Directive1 = 0x07,
        /// Read and clear.
        ReadClear = 0x0c,
        /// Read and set.
        ReadSet = 0x0d,
        /// Read and decrement.
        ReadDecrement = 0x0e,
        /// Read and increment.
        ReadIncrement = 0x0f,
    }
}

operations! {
    /// An operation that the PAMU forwards.
    Outgoing {
        /// Read.
        Read = 0x00,
        /// Write.
        Write = 0x01,
        /// Read and clear.
        ReadClear = 0x0c,
        /// Read and set.
        ReadSet = 0x0d,
        /// Read and decrement.
        ReadDecrement = 0x0e,
        /// Read and increment.
        ReadIncrement = 0x0f,
        /// Load external cache.
        Ldec = 0x10,
        /// Load external cache with lock.
        Ldecl = 0x11,
        /// Load external cache, preferred exclusive.
        Ldecpe = 0x12,
        /// Load external cache, preferred exclusive, with lock.
        Ldecpel = 0x13,
        /// Load external cache, forced exclusive.
        Ldecfe = 0x14,
        /// Load external cache, forced exclusive, with lock.
        Ldecfel = 0x15,
        /// Read with stash allocation.
        Rsa = 0x16,
        /// Read with stash allocation and unlock.
        Rsau = 0x17,
        /// Read and invalidate.
        Readi = 0x18,
        /// Read without intent to cache.
        Rwnitc = 0x19,
        /// Write, cache-inhibited.
        Wci = 0x1a,
        /// Write with stash allocation.
        Wwsa = 0x1b,
        /// Write with stash allocation and lock.
        Wwsal = 0x1c,
        /// Write with stash allocation only.
        Wwsao = 0x1d,
        /// Write with stash allocation only, and lock.
        Wwsaol = 0x1e,
    }
}

/// The valid bit of an operation's code.
const VALID: u8 = 0x80;

/// The number of rows of the OMT.
pub(crate) const MAPPING_ROWS: u16 = 16;

/// The size of a row of the OMT in bytes.
pub(crate) const ROW: usize = 128;

/// An incoming operation and the operation that it is mapped to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapped(pub(crate) Incoming, pub(crate) Outgoing);

impl Mapped {
    fn encode(self) -> u32 {
        // `Read` is the only incoming code without the valid bit.
        let incoming = match self.0 {
            Incoming::Read => 0,
            other => VALID | other as u8,
        };
        u32::from(incoming) << 8 | u32::from(VALID | self.1 as u8)
    }

    fn decode(bytes: u32) -> Result<Self, Invalid> {
        let (incoming, outgoing) = ((bytes >> 8) as u8, bytes as u8);
        let incoming = match (incoming, incoming & VALID) {
            (0, _) => Some(Incoming::Read),
            (_, 0) | (VALID, _) => None,
            (code, _) => Incoming::from_code(code & !VALID),
        };
        let outgoing = match outgoing & VALID {
            0 => None,
            _ => Outgoing::from_code(outgoing & !VALID),
        };
        Ok(Self(
            incoming.ok_or(Invalid::Operation)?,
            outgoing.ok_or(Invalid::Operation)?,
        ))
    }
}

/// The mapping of a device's operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OperationMapping {
    /// The operations are not changed.
    #[default]
    None,
    /// One or two operations are mapped.
    Immediate(Mapped, Option<Mapped>),
    /// A row of the OMT defines the mapping. The index is less than [`MAPPING_ROWS`].
    Indexed(u16),
}

impl OperationMapping {
    /// Checks that the row exists and that the pairs map different operations.
    pub(super) fn check(self) -> Result<(), Invalid> {
        match self {
            Self::Indexed(MAPPING_ROWS..) => Err(Invalid::Operation),
            Self::Immediate(a, Some(b)) if a.0 == b.0 => Err(Invalid::Operation),
            _ => Ok(()),
        }
    }

    /// Returns the mode and the word.
    pub(super) fn encode(self) -> (u32, u32) {
        match self {
            Self::None => (0, 0),
            Self::Immediate(a, b) => (1, a.encode() << 16 | b.map_or(0, Mapped::encode)),
            Self::Indexed(row) => (2, row.into()),
        }
    }

    /// Returns the mapping of this mode and word.
    pub(super) fn decode(mode: u32, word: u32) -> Result<Self, Invalid> {
        match mode {
            0 if word == 0 => Ok(Self::None),
            1 => Ok(Self::Immediate(
                Mapped::decode(word >> 16)?,
                match word & 0xffff {
                    0 => None,
                    bytes => Some(Mapped::decode(bytes)?),
                },
            )),
            2 if word < MAPPING_ROWS.into() => Ok(Self::Indexed(word as u16)),
            0 | 2 => Err(Invalid::Reserved),
            _ => Err(Invalid::Operation),
        }
    }
}

/// Returns a row of the OMT that maps `operations`, as bytes.
pub(crate) fn row(operations: &[Mapped]) -> [u8; ROW] {
    let mut row = [0; ROW];
    for Mapped(incoming, outgoing) in operations {
        row[*incoming as usize] = VALID | *outgoing as u8;
    }
    row
}

/// The rows that devices of these SoCs need, starting at row 0: for the portals of the queue
/// manager, the frame manager, the private memory of the queue manager, and the security engine.
pub(crate) const ROWS: [&[Mapped]; 4] = [
    &[
        Mapped(Incoming::Read, Outgoing::Read),
        Mapped(Incoming::EnhancedRead0, Outgoing::Rsa),
        Mapped(Incoming::Write, Outgoing::Write),
        Mapped(Incoming::EnhancedWrite0, Outgoing::Wwsao),
        Mapped(Incoming::Directive0, Outgoing::Ldec),
        Mapped(Incoming::Directive1, Outgoing::Ldecpe),
    ],
    &[
        Mapped(Incoming::Read, Outgoing::Readi),
        Mapped(Incoming::Write, Outgoing::Write),
    ],
    &[
        Mapped(Incoming::Read, Outgoing::Read),
        Mapped(Incoming::Write, Outgoing::Write),
        Mapped(Incoming::EnhancedRead0, Outgoing::Rsa),
        Mapped(Incoming::EnhancedWrite0, Outgoing::Wwsa),
    ],
    &[
        Mapped(Incoming::Read, Outgoing::Readi),
        Mapped(Incoming::Write, Outgoing::Write),
    ],
];
