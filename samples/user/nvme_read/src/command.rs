// SPDX-License-Identifier: GPL-2.0

//! Commands and completions (sections 4.2 and 4.6 of the specification).

use crate::prp::Prp;
use zerocopy::{
    FromBytes, Immutable, IntoBytes,
    little_endian::{
        U16,
        U32,
        U64, //
    },
};

/// A command, as it is stored in the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Command {
    opcode: u8,
    flags: u8,
    id: U16,
    namespace: U32,
    reserved: [U32; 2],
    metadata: U64,
    /// The PRP entries.
    data: [U64; 2],
    /// Command dwords 10 to 15, whose meaning depends on the command.
    words: [U32; 6],
}

const _: () = assert!(size_of::<Command>() == 64);

impl Command {
    fn new(opcode: u8, namespace: u32, data: [u64; 2], words: [u32; 3]) -> Self {
        let [first, second, third] = words.map(U32::new);
        Self {
            opcode,
            namespace: namespace.into(),
            data: data.map(U64::new),
            words: [first, second, third, U32::ZERO, U32::ZERO, U32::ZERO],
            ..Self::default()
        }
    }

    /// Creates an I/O completion queue that signals interrupt `vector`.
    pub fn create_completion_queue(id: u16, entries: usize, iova: u64, vector: u16) -> Self {
        let size = ((entries as u32 - 1) << 16) | u32::from(id);
        // Physically contiguous, with interrupts.
        let kind = (u32::from(vector) << 16) | 0b11;
        Self::new(0x05, 0, [iova, 0], [size, kind, 0])
    }

    /// Creates an I/O submission queue that uses the completion queue of the same number.
    pub fn create_submission_queue(id: u16, entries: usize, iova: u64) -> Self {
        let size = ((entries as u32 - 1) << 16) | u32::from(id);
        let kind = (u32::from(id) << 16) | 0b1;
        Self::new(0x01, 0, [iova, 0], [size, kind, 0])
    }

    /// Requests the page that describes the controller.
    pub fn identify_controller(iova: u64) -> Self {
        Self::new(0x06, 0, [iova, 0], [1, 0, 0])
    }

    /// Requests the page that describes a namespace.
    pub fn identify_namespace(namespace: u32, iova: u64) -> Self {
        Self::new(0x06, namespace, [iova, 0], [0; 3])
    }

    /// Reads `blocks` blocks; `blocks` is at least one.
    pub fn read(namespace: u32, first: u64, blocks: u16, prp: &Prp) -> Self {
        let [low, high] = [first as u32, (first >> 32) as u32];
        let words = [low, high, u32::from(blocks) - 1];
        Self::new(0x02, namespace, [prp.first, prp.second], words)
    }

    /// Sets the identifier, which the completion of the command contains.
    #[must_use]
    pub fn with_id(self, id: u16) -> Self {
        Self {
            id: id.into(),
            ..self
        }
    }
}

/// A completion queue entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Completion {
    result: [U32; 2],
    submission_head: U16,
    submission_queue: U16,
    id: U16,
    /// The phase bit, and the status above it.
    pub(crate) state: U16,
}

const _: () = assert!(size_of::<Completion>() == 16);

impl Completion {
    /// Returns the phase bit of [`state`](Self::state).
    pub(crate) fn phase_of(state: u16) -> bool {
        state & 1 != 0
    }

    /// Returns the identifier of the command.
    pub fn id(&self) -> u16 {
        self.id.get()
    }

    /// Returns the status type and code; 0 is success.
    pub fn status(&self) -> u16 {
        (self.state.get() >> 1) & 0x7ff
    }

    /// Returns a description of the status.
    pub fn describe(&self) -> String {
        match self.status() {
            0x000 => "success".to_owned(),
            0x002 => "invalid field in command".to_owned(),
            0x004 => "data transfer error".to_owned(),
            0x006 => "internal error".to_owned(),
            other => format!("status type {}, code {:#04x}", other >> 8, other & 0xff),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_is_encoded() {
        let prp = Prp {
            first: 0x1122_3344_5566_7000,
            second: 0x8000,
            list: Vec::new(),
        };
        let command = Command::read(1, 0x1_0000_0002, 8, &prp).with_id(0xabcd);
        let bytes = command.as_bytes();
        assert_eq!(bytes[..8], [0x02, 0, 0xcd, 0xab, 1, 0, 0, 0]);
        assert_eq!(bytes[24..32], prp.first.to_le_bytes());
        assert_eq!(bytes[32..40], prp.second.to_le_bytes());
        assert_eq!(bytes[40..52], [2, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0]);
        assert_eq!(bytes[52..], [0; 12]);
    }

    #[test]
    fn completion_is_decoded() {
        let mut bytes = [0; 16];
        bytes[12..].copy_from_slice(&0x0009_0007_u32.to_le_bytes());
        let completion: Completion = zerocopy::transmute!(bytes);
        assert_eq!((completion.id(), completion.status()), (7, 4));
        assert!(Completion::phase_of(completion.state.get()));
        assert_eq!(completion.describe(), "data transfer error");
        assert!(!Completion::phase_of(0xfffe));
    }
}
