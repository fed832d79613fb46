// SPDX-License-Identifier: GPL-2.0

//! The tracepoints below `events/ioasid` in tracefs.

mod c {
    extern "C" {
        pub(super) fn ioasid_trace_alloc(id: u32, set: u32);
        pub(super) fn ioasid_trace_free(id: u32);
        pub(super) fn ioasid_trace_reclaim(id: u32);
        pub(super) fn ioasid_trace_hand_over(from: u32, to: u32, orphans: i32);
    }
}

/// An id was allocated.
#[inline]
pub(crate) fn alloc(id: u32, set: u32) {
    // SAFETY: The function of `trace.c` has no requirements.
    unsafe { c::ioasid_trace_alloc(id, set) }
}

/// An id was freed; somebody may have references still.
#[inline]
pub(crate) fn free(id: u32) {
    // SAFETY: The function of `trace.c` has no requirements.
    unsafe { c::ioasid_trace_free(id) }
}

/// An id's last reference is gone.
#[inline]
pub(crate) fn reclaim(id: u32) {
    // SAFETY: The function of `trace.c` has no requirements.
    unsafe { c::ioasid_trace_reclaim(id) }
}

/// Another kind of allocators is active.
pub(crate) fn hand_over(from: u32, to: u32, orphans: i32) {
    // SAFETY: The function of `trace.c` has no requirements.
    unsafe { c::ioasid_trace_hand_over(from, to, orphans) }
}
