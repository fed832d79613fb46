// SPDX-License-Identifier: GPL-2.0

//! What several suites of tests use.

/// Numbers that look random, the same ones for the same seed (xorshift64).
pub(crate) struct Random(u64);

impl Random {
    /// The sequence of `seed`, which isn't 0.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number from 0 to `limit - 1`, or 0 if that is 0, too.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11).checked_rem(limit).unwrap_or(0)
    }

    /// One of `list`, which isn't empty.
    pub(crate) fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }
}
