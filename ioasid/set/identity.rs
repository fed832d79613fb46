// SPDX-License-Identifier: GPL-2.0

//! The ids and the owners of sets.

/// Identifies a set: a number for looking it up, and a generation that distinguishes it from
/// earlier sets with the same number.
///
/// C code uses it as the value of a `struct ioasid_set *`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SetId {
    number: u32,
    generation: u32,
}

impl SetId {
    /// The set of all ids that are in no other set.
    pub const ROOT: Self = Self::new(0, 0);

    pub(crate) const fn new(number: u32, generation: u32) -> Self {
        Self { number, generation }
    }

    /// Returns the number, which identifies the set in messages.
    #[inline]
    pub fn number(self) -> u32 {
        self.number
    }

    #[inline]
    pub(crate) fn generation(self) -> u32 {
        self.generation
    }

    /// Returns the id of the set as an integer.
    #[inline]
    pub(crate) fn to_raw(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.number)
    }

    /// Creates the id of a set from an integer.
    #[inline]
    pub(crate) fn from_raw(raw: u64) -> Self {
        Self::new(raw as u32, (raw >> 32) as u32)
    }
}

/// The owner of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Token {
    /// No particular owner.
    None,
    /// A process, identified by the address of its `struct mm_struct`, which must exist as long as
    /// the set. A process has at most one set.
    Mm(usize),
    /// A value that is only meaningful to the set's creator.
    Private(usize),
}

impl Token {
    /// Returns the token's kind and value as debugfs shows them.
    pub(crate) fn parts(self) -> (&'static str, usize) {
        match self {
            Self::None => ("none", 0),
            Self::Mm(mm) => ("mm", mm),
            Self::Private(value) => ("private", value),
        }
    }
}
