// SPDX-License-Identifier: GPL-2.0

//! User memory for devices: pinning, and accounting of pinned memory.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)

mod access;
mod accounting;
mod mapped_file;
mod memcg;
mod pfnmap;
mod pin;
mod slot;

pub use access::is_user_range;
pub use accounting::{
    kib,
    Charge,
    Owner, //
};
pub use mapped_file::{
    covered_pages,
    mapped_page, //
};
pub use memcg::MemoryCgroup;
pub use pfnmap::FrameRun;
pub use pin::{
    PinBatch,
    PinnedPage,
    PinnedRun, //
};
pub use slot::{
    PinSlot,
    Released,
    SlotBatch, //
};

use crate::bindings;

/// Lets other tasks run. For loops that may take long. May sleep.
#[inline]
pub fn cond_resched() {
    // SAFETY: There are no requirements. Sleeping in the wrong context would be found by lockdep,
    // and doesn't affect memory safety.
    unsafe { bindings::kernel_ext_cond_resched() }
}

/// Returns whether the calling task is about to be killed, so that continuing is pointless.
#[inline]
pub fn fatal_signal_pending() -> bool {
    // SAFETY: The function only looks at `current`.
    unsafe { bindings::kernel_ext_fatal_signal_pending() }
}

/// Rate limit for warnings that userspace can trigger. Returns whether to log one now.
pub fn may_warn() -> bool {
    // SAFETY: The rate limit is a static variable with its own lock.
    unsafe { bindings::kernel_ext_ratelimit() }
}
