// SPDX-License-Identifier: GPL-2.0

//! The source of a generator's choices.

use arbitrary::Unstructured;
use std::ops::{
    Bound,
    RangeBounds, //
};

/// The source of choices.
#[derive(Debug)]
pub enum Choices<'a> {
    /// An endless pseudo-random sequence.
    Random(fastrand::Rng),
    /// Bytes chosen by the caller. Changing some bytes changes some of the choices.
    Bytes(Unstructured<'a>),
}

macro_rules! numbers {
    ($($number:ident)*) => { $(
        #[doc = concat!("A `", stringify!($number), "` of a range, which must not be empty.")]
        pub fn $number(&mut self, range: impl RangeBounds<$number>) -> $number {
            let first = match range.start_bound() {
                Bound::Included(first) => *first,
                Bound::Excluded(before) => *before + 1,
                Bound::Unbounded => 0,
            };
            let last = match range.end_bound() {
                Bound::Included(last) => *last,
                Bound::Excluded(end) => *end - 1,
                Bound::Unbounded => $number::MAX,
            };
            match self {
                Self::Random(rng) => rng.$number(first..=last),
                // After the last byte, the first number of the range.
                Self::Bytes(bytes) => bytes.int_in_range(first..=last).unwrap_or(first),
            }
        }
    )* };
}

impl<'a> Choices<'a> {
    /// Returns the choices of a seed.
    pub fn of_seed(seed: u64) -> Self {
        Self::Random(fastrand::Rng::with_seed(seed))
    }

    /// Returns the choices given by some bytes.
    pub fn of_bytes(bytes: &'a [u8]) -> Self {
        Self::Bytes(Unstructured::new(bytes))
    }

    /// Returns whether all bytes are used up.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Random(_) => false,
            Self::Bytes(bytes) => bytes.is_empty(),
        }
    }

    numbers!(u8 u32 u64 usize);
}
