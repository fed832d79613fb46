// SPDX-License-Identifier: GPL-2.0

//! Capability chains, which follow the structures of `_INFO` ioctls.

use kernel::{
    prelude::*,
    transmute::AsBytes, //
};

/// The number of words in `struct vfio_info_cap_header`: 16 bits each for id and version, then
/// `next`.
const HEADER: usize = 2;

/// The size of a 32-bit word. All fields here consist of such words.
const WORD: usize = 4;

/// A capability chain. Each capability begins at a multiple of 8 bytes, with a header that
/// contains the offset of the next one.
pub(crate) struct Chain {
    words: KVec<u32>,
    /// The offset of the chain in the structure that contains it, in bytes.
    base: usize,
    /// The index of the last header in `words`.
    last: usize,
}

impl Chain {
    /// Creates an empty chain at offset `base` of a structure, with memory for `room` words.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(base: usize, room: usize) -> Result<Self> {
        Ok(Self {
            words: KVec::with_capacity(room, GFP_KERNEL)?,
            base,
            last: 0,
        })
    }

    /// Adds a capability whose 32-bit fields are `words`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn add(&mut self, id: u16, version: u16, words: &[u32]) -> Result {
        let words = words.iter().copied();
        self.add_iter(id, version, words)
    }

    /// Like [`add`](Self::add), but takes the fields from an iterator.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn add_iter(
        &mut self,
        id: u16,
        version: u16,
        words: impl Iterator<Item = u32>,
    ) -> Result {
        let start = self.words.len();
        if start != 0 {
            if let Some(next) = self.words.get_mut(self.last + 1) {
                *next = (self.base + start * WORD) as u32;
            }
        }
        let ([a, b], [c, d]) = (id.to_ne_bytes(), version.to_ne_bytes());
        self.words
            .extend_from_slice(&[u32::from_ne_bytes([a, b, c, d]), 0], GFP_KERNEL)?;
        for word in words {
            self.words.push(word, GFP_KERNEL)?;
        }
        let end = self.words.len().next_multiple_of(HEADER);
        self.words.resize(end, 0, GFP_KERNEL)?;
        self.last = start;
        Ok(())
    }

    /// Returns the chain.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        AsBytes::as_bytes(&self.words[..])
    }
}

/// Returns the two words of a 64-bit field, in the order in which they are in memory.
pub(crate) fn words(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_ne_bytes();
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
    ]
}

#[kunit_tests(vfio_type1_caps)]
mod tests {
    use super::*;

    #[test]
    fn chain_of_three() -> Result {
        let mut chain = Chain::new(24, 8)?;
        chain.add(2, 1, &[0])?;
        chain.add(3, 1, &[7, 8, 9])?;
        chain.add(1, 1, &[])?;
        let mut expected = [0u8; 48];
        for (offset, id, next) in [(0, 2, 24 + 16), (16, 3, 24 + 40), (40, 1, 0)] {
            expected[offset] = id;
            expected[offset + 2] = 1;
            expected[offset + 4] = next;
        }
        expected[24] = 7;
        expected[28] = 8;
        expected[32] = 9;
        assert_eq!(chain.as_bytes(), &expected);
        Ok(())
    }

    #[test]
    fn words_of_a_field() {
        assert_eq!(words(0x1_0000_0002), [2, 1]);
    }
}
