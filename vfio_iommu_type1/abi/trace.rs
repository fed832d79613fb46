// SPDX-License-Identifier: GPL-2.0

//! The tracepoint `events/vfio_type1/vfio_type1_refused` in tracefs.

use kernel::{
    ffi::{
        c_char,
        c_int, //
    },
    prelude::*, //
};

use iommu_group::ranges::Range;

use crate::refusal::Refusal;

extern "C" {
    fn vfio_type1_trace_refused(
        request: *const c_char,
        iova: u64,
        size: u64,
        first: u64,
        last: u64,
        error: c_int,
        reason: *const c_char,
    );
}

/// Traces why `request`, for `size` bytes at `iova`, fails.
pub(crate) fn refused(request: &'static CStr, iova: u64, size: u64, refusal: &Refusal) {
    let place = refusal.place.unwrap_or(Range {
        start: iova,
        last: iova.wrapping_add(size).wrapping_sub(1),
    });
    // SAFETY: The function in `trace.c` only requires that two of its arguments are strings.
    unsafe {
        vfio_type1_trace_refused(
            request.as_char_ptr(),
            iova,
            size,
            place.start,
            place.last,
            refusal.error.to_errno(),
            refusal.reason.as_char_ptr(),
        );
    };
}
