// SPDX-License-Identifier: GPL-2.0

//! Commands and completions (sections 4.2 and 4.6 of the specification).

use crate::prp::Prp;

/// The size of a command.
pub const COMMAND_SIZE: usize = 64;
/// The size of a completion.
pub const COMPLETION_SIZE: usize = 16;

/// A command without its identifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    opcode: u8,
    namespace: u32,
    data: [u64; 2],
    words: [u32; 6],
}

impl Command {
    fn new(opcode: u8) -> Self {
        Self {
            opcode,
            namespace: 0,
            data: [0; 2],
            words: [0; 6],
        }
    }

    /// Creates an I/O completion queue that signals interrupt `vector`.
    pub fn create_completion_queue(id: u16, entries: usize, iova: u64, vector: u16) -> Self {
        let mut command = Self::new(0x05);
        command.data[0] = iova;
        command.words[0] = ((entries as u32 - 1) << 16) | u32::from(id);
        // Physically contiguous, with interrupts.
        command.words[1] = (u32::from(vector) << 16) | 0b11;
        command
    }

    /// Creates an I/O submission queue that uses the completion queue of the same number.
    pub fn create_submission_queue(id: u16, entries: usize, iova: u64) -> Self {
        let mut command = Self::new(0x01);
        command.data[0] = iova;
        command.words[0] = ((entries as u32 - 1) << 16) | u32::from(id);
        command.words[1] = (u32::from(id) << 16) | 0b1;
        command
    }

    /// Requests the page that describes the controller.
    pub fn identify_controller(iova: u64) -> Self {
        let mut command = Self::new(0x06);
        command.data[0] = iova;
        command.words[0] = 1;
        command
    }

    /// Requests the page that describes a namespace.
    pub fn identify_namespace(namespace: u32, iova: u64) -> Self {
        let mut command = Self::new(0x06);
        command.namespace = namespace;
        command.data[0] = iova;
        command
    }

    /// Reads `blocks` blocks; `blocks` is at least one.
    pub fn read(namespace: u32, first: u64, blocks: u16, prp: &Prp) -> Self {
        let mut command = Self::new(0x02);
        command.namespace = namespace;
        command.data = [prp.first, prp.second];
        command.words[0] = first as u32;
        command.words[1] = (first >> 32) as u32;
        command.words[2] = u32::from(blocks) - 1;
        command
    }

    /// Returns the command as it is stored in the queue.
    pub fn encode(&self, id: u16) -> [u8; COMMAND_SIZE] {
        let mut bytes = [0; COMMAND_SIZE];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &[self.opcode, 0]);
        put(2, &id.to_le_bytes());
        put(4, &self.namespace.to_le_bytes());
        put(24, &self.data[0].to_le_bytes());
        put(32, &self.data[1].to_le_bytes());
        for (i, word) in self.words.iter().enumerate() {
            put(40 + 4 * i, &word.to_le_bytes());
        }
        bytes
    }
}

/// A completion queue entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The identifier of the command.
    pub id: u16,
    /// Status type and code; 0 is success.
    pub status: u16,
    /// The value of the phase bit.
    pub phase: bool,
}

impl Completion {
    /// Decodes the last word of a completion.
    pub fn decode(word: u32) -> Self {
        Self {
            id: word as u16,
            status: (word >> 17) as u16 & 0x7ff,
            phase: (word >> 16) & 1 != 0,
        }
    }

    /// Returns a description of the status.
    pub fn describe(&self) -> String {
        match self.status {
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
        let bytes = Command::read(1, 0x1_0000_0002, 8, &prp).encode(0xabcd);
        assert_eq!(bytes[..8], [0x02, 0, 0xcd, 0xab, 1, 0, 0, 0]);
        assert_eq!(bytes[24..32], prp.first.to_le_bytes());
        assert_eq!(bytes[32..40], prp.second.to_le_bytes());
        assert_eq!(bytes[40..52], [2, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0]);
        assert_eq!(bytes[52..], [0; 12]);
    }

    #[test]
    fn completion_is_decoded() {
        let completion = Completion::decode(0x0009_0007);
        assert_eq!((completion.id, completion.status), (7, 4));
        assert!(completion.phase);
        assert_eq!(completion.describe(), "data transfer error");
        assert!(!Completion::decode(0xffff_fffe ^ 0x1_0000).phase);
    }
}
