// SPDX-License-Identifier: GPL-2.0

//! The tracepoints in `events/ioasid` of tracefs.

mod c {
    extern "C" {
        pub(super) fn ioasid_trace_alloc(id: u32, set: u32);
        pub(super) fn ioasid_trace_free(id: u32);
        pub(super) fn ioasid_trace_reclaim(id: u32);
        pub(super) fn ioasid_trace_hand_over(from: u32, to: u32, orphans: i32);
    }
}

/// Traces the allocation of an id.
#[inline]
pub(crate) fn alloc(id: u32, set: u32) {
    // SAFETY: The function of `trace.c` has no requirements.
    unsafe { c::ioasid_trace_alloc(id, set) }
}

/// Traces that an id was freed. References may still exist.
#[inline]
pub(crate) fn free(id: u32) {
    // SAFETY: The function of `trace.c` has no requirements.
    unsafe { c::ioasid_trace_free(id) }
}

/// Traces that the last reference to an id was dropped.
#[inline]
pub(crate) fn reclaim(id: u32) {
    // SAFETY: The function of `trace.c` has no requirements.
    unsafe { c::ioasid_trace_reclaim(id) }
}

/// Traces that another kind of allocators became active.
pub(crate) fn hand_over(from: u32, to: u32, orphans: i32) {
    // SAFETY: The function of `trace.c` has no requirements.
    unsafe { c::ioasid_trace_hand_over(from, to, orphans) }
}
