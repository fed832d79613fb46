// SPDX-License-Identifier: GPL-2.0

//! Time in timer ticks (jiffies), which are very cheap to read.
//!
//! A tick takes a few milliseconds. The duration of short operations is correct in the sum over
//! many: the share of them that contain a tick corresponds to their duration.
//!
//! C header: [`include/linux/jiffies.h`](srctree/include/linux/jiffies.h)

use kernel::ffi::c_ulong;

use crate::bindings;

/// A point in time.
#[derive(Clone, Copy)]
pub struct Ticks(c_ulong);

impl Ticks {
    /// Returns the current time.
    #[inline]
    pub fn now() -> Self {
        // SAFETY: The word exists in the kernel. It is read by one volatile read, because
        // interrupts change it.
        Self(unsafe { (&raw const bindings::jiffies).read_volatile() })
    }

    /// Returns the number of ticks since this time.
    #[inline]
    pub fn elapsed(self) -> u64 {
        Self::now().0.wrapping_sub(self.0) as u64
    }
}

/// Converts ticks to milliseconds.
pub fn milliseconds(ticks: u64) -> u64 {
    // SAFETY: The function only computes.
    unsafe { bindings::jiffies64_to_msecs(ticks) }
}
