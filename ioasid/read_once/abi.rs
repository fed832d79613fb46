// SPDX-License-Identifier: GPL-2.0

//! `READ_ONCE()` and `WRITE_ONCE()` without a call to C, for code where the call is too expensive.

use kernel::sync::atomic::{
    Atomic,
    AtomicType, //
};

/// Returns the current value of the word.
///
/// As with `READ_ONCE()`, data that is accessed through the word is read after it.
#[inline]
pub(crate) fn read_once<T: AtomicType>(word: &Atomic<T>) -> T {
    // SAFETY: The word is valid and aligned, and all writes to it are atomic; a volatile read of an
    // aligned word is a single one.
    unsafe { word.as_ptr().read_volatile() }
}

/// Sets the word, without ordering relative to other words.
#[inline]
pub(crate) fn write_once<T: AtomicType>(word: &Atomic<T>, value: T) {
    // SAFETY: The word is valid and aligned, and all accesses to it are atomic; a volatile write to
    // an aligned word is a single one.
    unsafe { word.as_ptr().write_volatile(value) }
}
