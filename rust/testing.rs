// SPDX-License-Identifier: GPL-2.0

//! Helpers that test suites of several crates use.

use kernel::prelude::*;

use crate::bindings;

/// Reports the running KUnit test as skipped. The caller then returns from the test.
pub fn skip(reason: &CStr) {
    // SAFETY: The function copies the string.
    unsafe { bindings::kernel_ext_kunit_skip(reason.as_char_ptr()) };
}

/// A pseudorandom sequence that the seed determines (xorshift64).
pub struct Random(u64);

impl Random {
    /// Returns the sequence of `seed`, which isn't 0.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Returns a number from 0 to `limit - 1`, or 0 if `limit` is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        (self.next_u64() >> 11).checked_rem(limit).unwrap_or(0)
    }

    /// Returns one element of `list`, which isn't empty.
    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }
}
