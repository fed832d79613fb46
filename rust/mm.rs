// SPDX-License-Identifier: GPL-2.0

//! User memory that devices reach: pinning it, and charging its owner.
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
    Released, //
};

use crate::bindings;

/// Lets other tasks run, in a loop that may take long. May sleep.
pub fn cond_resched() {
    // SAFETY: There are no requirements; sleeping in the wrong place would be found by lockdep, and
    // isn't a matter of memory safety.
    unsafe { bindings::kernel_ext_cond_resched() }
}

/// Whether the calling task is about to be killed, so that it makes no sense to go on.
pub fn fatal_signal_pending() -> bool {
    // SAFETY: It looks at `current` only.
    unsafe { bindings::kernel_ext_fatal_signal_pending() }
}

/// Whether a warning which a program can provoke at will may be printed now.
pub fn may_warn() -> bool {
    // SAFETY: The budget is a static variable with its own lock.
    unsafe { bindings::kernel_ext_ratelimit() }
}
