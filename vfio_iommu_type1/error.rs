// SPDX-License-Identifier: GPL-2.0

//! The error of a map or unmap request: an errno for the caller, and a reason for the tracepoint
//! `vfio_type1_refused`.

#[allow(unsafe_code)]
mod abi;

use kernel::prelude::*;

use kernel_ext::iova::Range;

use crate::space::{
    Killed,
    Occupied, //
};

/// The result of a map or unmap request.
pub(crate) type RequestResult<T = ()> = core::result::Result<T, RequestError>;

/// An errno with its reason.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestError {
    errno: Error,
    reason: &'static CStr,
    /// The iova range that caused the error, unless it is that of the request.
    range: Option<Range>,
}

impl RequestError {
    /// The `argsz` of the ioctl is too small.
    pub(crate) const SHORT_ARGSZ: Self = Self::new(EINVAL, c"argsz too small");

    /// The range of an unmap cuts a mapping.
    pub(crate) const BISECTED: Self = Self::new(EINVAL, c"range bisects a mapping");

    /// Creates an error.
    pub(crate) const fn new(errno: Error, reason: &'static CStr) -> Self {
        Self {
            errno,
            reason,
            range: None,
        }
    }

    /// Sets the range that caused the error, for example that of an existing mapping.
    pub(crate) const fn at(self, range: Range) -> Self {
        Self {
            range: Some(range),
            ..self
        }
    }

    /// Returns whether this is [`BISECTED`](Self::BISECTED), at any range.
    pub(crate) fn is_bisected(&self) -> bool {
        self.reason == Self::BISECTED.reason
    }

    /// Adds the reason to an error of [`Charge::add`](kernel_ext::mm::Charge::add).
    pub(crate) fn charge(errno: Error) -> Self {
        let reason = if errno == ENOMEM {
            c"locked memory limit exceeded; raise RLIMIT_MEMLOCK"
        } else {
            c"the process is exiting"
        };
        Self::new(errno, reason)
    }
}

impl From<Killed> for RequestError {
    fn from(_: Killed) -> Self {
        Self::new(EINTR, c"the task was killed while it waited")
    }
}

impl From<Occupied> for RequestError {
    fn from(Occupied(found): Occupied) -> Self {
        Self::new(EEXIST, c"range overlaps an existing mapping").at(found)
    }
}

impl From<RequestError> for Error {
    fn from(error: RequestError) -> Self {
        error.errno
    }
}
