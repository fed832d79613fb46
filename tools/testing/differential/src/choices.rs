// SPDX-License-Identifier: GPL-2.0

//! Where a generator's choices come from.

use arbitrary::Unstructured;
use std::ops::{
    Bound,
    RangeBounds, //
};

/// The source of choices.
#[derive(Debug)]
pub enum Choices<'a> {
    /// A pseudo-random sequence, without an end.
    Random(fastrand::Rng),
    /// Bytes of somebody's choice: a change of some of them changes some of the choices.
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
                // Where there are no more bytes it is the first one.
                Self::Bytes(bytes) => bytes.int_in_range(first..=last).unwrap_or(first),
            }
        }
    )* };
}

impl<'a> Choices<'a> {
    /// Those of a seed.
    pub fn of_seed(seed: u64) -> Self {
        Self::Random(fastrand::Rng::with_seed(seed))
    }

    /// Those of some bytes.
    pub fn of_bytes(bytes: &'a [u8]) -> Self {
        Self::Bytes(Unstructured::new(bytes))
    }

    /// Whether all bytes are used up.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Random(_) => false,
            Self::Bytes(bytes) => bytes.is_empty(),
        }
    }

    numbers!(u8 u32 u64 usize);
}
