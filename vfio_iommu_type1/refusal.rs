// SPDX-License-Identifier: GPL-2.0

//! The reason why a map or unmap request fails: an errno for the caller, and the tracepoint
//! `vfio_type1_refused` for diagnosis.

use kernel::prelude::*;

use iommu_group::ranges::Range;

use crate::space::Killed;

/// The result of a request: a value, or an error with its reason.
pub(crate) type Granted<T = ()> = core::result::Result<T, Refusal>;

/// An error with its reason.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal {
    /// The errno that the caller receives.
    pub(crate) error: Error,
    /// The reason that the tracepoint reports.
    pub(crate) reason: &'static CStr,
    /// The IOVA range that the error is about, unless it is the whole request.
    pub(crate) place: Option<Range>,
}

impl Refusal {
    /// The `argsz` of the ioctl is too small.
    pub(crate) const SHORT: Self = Self::new(EINVAL, c"argsz too small");

    /// Creates an error about the whole request.
    pub(crate) const fn new(error: Error, reason: &'static CStr) -> Self {
        Self {
            error,
            reason,
            place: None,
        }
    }

    /// Creates an error about `place`, for example an existing mapping.
    pub(crate) const fn at(place: Range, error: Error, reason: &'static CStr) -> Self {
        Self {
            error,
            reason,
            place: Some(place),
        }
    }

    /// Returns the same error, about `place`.
    pub(crate) fn in_place(self, place: Range) -> Self {
        Self::at(place, self.error, self.reason)
    }

    /// Adds a reason to an error of [`Charge::add`](kernel_ext::mm::Charge::add).
    pub(crate) fn charging(error: Error) -> Self {
        let reason = if error == ENOMEM {
            c"over RLIMIT_MEMLOCK"
        } else {
            c"the process ends"
        };
        Self::new(error, reason)
    }
}

impl From<Killed> for Refusal {
    fn from(_: Killed) -> Self {
        Self::new(EINTR, c"killed while it waited")
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        refusal.error
    }
}

/// Returns a function that adds `reason` to an error.
pub(crate) fn because(reason: &'static CStr) -> impl Fn(Error) -> Refusal {
    move |error| Refusal::new(error, reason)
}

/// Returns the range of `size` bytes at `start`.
///
/// # Errors
///
/// `EINVAL` if `size` is 0, `EOVERFLOW` if the range exceeds the last address.
pub(crate) fn range(start: u64, size: u64) -> Granted<Range> {
    let reason = if size == 0 {
        c"no bytes"
    } else {
        c"goes past the last address"
    };
    Range::of_size(start, size).map_err(because(reason))
}
