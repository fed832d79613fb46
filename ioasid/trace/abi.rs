// SPDX-License-Identifier: GPL-2.0

//! The tracepoints in `events/ioasid` of tracefs, which `trace.c` defines.

// SAFETY: The signatures are those in `trace.c`. The functions accept all values.
unsafe extern "C" {
    /// Traces the allocation of an id in a set, which is given by its number.
    #[link_name = "ioasid_trace_alloc"]
    pub(crate) safe fn alloc(id: u32, set: u32);

    /// Traces that an id was freed. References may still exist.
    #[link_name = "ioasid_trace_free"]
    pub(crate) safe fn free(id: u32);

    /// Traces that the last reference to an id was dropped.
    #[link_name = "ioasid_trace_reclaim"]
    pub(crate) safe fn reclaim(id: u32);

    /// Traces that new ids come from another kind of allocators; 0 is the default allocator.
    #[link_name = "ioasid_trace_hand_over"]
    pub(crate) safe fn hand_over(from: u32, to: u32, orphans: i32);
}
