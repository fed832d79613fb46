// SPDX-License-Identifier: GPL-2.0

//! The tracepoint `events/vfio_type1/vfio_type1_refused` in tracefs, from `trace.c`.

use kernel::{
    ffi::{
        c_char,
        c_int, //
    },
    prelude::*, //
};

use kernel_ext::iova::Range;

use super::RequestError;

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

impl RequestError {
    /// Traces that `request`, for `size` bytes at `iova`, fails with this error.
    pub(crate) fn trace(&self, request: &'static CStr, iova: u64, size: u64) {
        let range = self.range.unwrap_or(Range {
            start: iova,
            last: iova.wrapping_add(size).wrapping_sub(1),
        });
        // SAFETY: The function in `trace.c` only requires that two of its arguments are strings.
        unsafe {
            vfio_type1_trace_refused(
                request.as_char_ptr(),
                iova,
                size,
                range.start,
                range.last,
                self.errno.to_errno(),
                self.reason.as_char_ptr(),
            );
        };
    }
}
