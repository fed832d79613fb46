// SPDX-License-Identifier: GPL-2.0

//! Time in ticks of the timer, which cost next to nothing to read.
//!
//! A tick is a few milliseconds. How long short things take is right in the sum of many: as often as one of
//! them takes the time of a tick, a tick falls into it.
//!
//! C header: [`include/linux/jiffies.h`](srctree/include/linux/jiffies.h)

use kernel::ffi::c_ulong;

use crate::bindings;

/// A point in time.
#[derive(Clone, Copy)]
pub struct Ticks(c_ulong);

impl Ticks {
    /// The present.
    #[inline]
    pub fn now() -> Self {
        // SAFETY: The kernel has this word, which is read at once: interrupts change it.
        Self(unsafe { (&raw const bindings::jiffies).read_volatile() })
    }

    /// How many ticks there were since.
    #[inline]
    pub fn elapsed(self) -> u64 {
        Self::now().0.wrapping_sub(self.0) as u64
    }
}

/// The time of so many ticks, in milliseconds.
pub fn milliseconds(ticks: u64) -> u64 {
    // SAFETY: It computes.
    unsafe { bindings::jiffies64_to_msecs(ticks) }
}
