// SPDX-License-Identifier: GPL-2.0

//! How sets are named.

/// The name of a set: a number, by which it is looked up, and a generation, which tells it from those
/// that had the number before.
///
/// C has it as the value of a `struct ioasid_set *`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SetId {
    number: u32,
    generation: u32,
}

impl SetId {
    /// The set which all ids belong to that are in no other.
    pub const ROOT: Self = Self::new(0, 0);

    pub(crate) const fn new(number: u32, generation: u32) -> Self {
        Self { number, generation }
    }

    /// The number, by which people tell sets apart.
    #[inline]
    pub fn number(self) -> u32 {
        self.number
    }

    #[inline]
    pub(crate) fn generation(self) -> u32 {
        self.generation
    }

    /// The name as one word.
    #[inline]
    pub(crate) fn to_raw(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.number)
    }

    /// The name that is in a word.
    #[inline]
    pub(crate) fn from_raw(raw: u64) -> Self {
        Self::new(raw as u32, (raw >> 32) as u32)
    }
}
