// SPDX-License-Identifier: GPL-2.0

//! `READ_ONCE()` without a call of C.

use kernel::sync::atomic::Atomic;

/// The word as it is now; for what is read so often that a call would matter.
///
/// As with `READ_ONCE()`, what is reached by way of the word is read after it.
#[inline]
pub fn read_once(word: &Atomic<usize>) -> usize {
    // SAFETY: The word is valid and aligned, and all writes to it are atomic; a volatile read of an
    // aligned word is a single one.
    unsafe { word.as_ptr().read_volatile() }
}
