// SPDX-License-Identifier: GPL-2.0

//! Why a request to map or unmap isn't granted: an error for the program that made it, and the
//! tracepoint `vfio_type1_refused` for whoever has to find out.

use kernel::prelude::*;

use iommu_group::ranges::Range;

/// What a request comes to: an error comes with its reason.
pub(crate) type Granted<T = ()> = core::result::Result<T, Refusal>;

/// An error, and what it is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal {
    /// What the program is told.
    pub(crate) error: Error,
    /// What the tracepoint tells.
    pub(crate) reason: &'static CStr,
    /// Which device addresses it is about, if not all of those in the request.
    pub(crate) place: Option<Range>,
}

impl Refusal {
    /// The argument of the ioctl is too short.
    pub(crate) const SHORT: Self = Self::new(EINVAL, c"argsz too small");

    /// An error that is about all of the request.
    pub(crate) const fn new(error: Error, reason: &'static CStr) -> Self {
        Self {
            error,
            reason,
            place: None,
        }
    }

    /// An error that is about `place`, such as something that is mapped there.
    pub(crate) const fn at(place: Range, error: Error, reason: &'static CStr) -> Self {
        Self {
            error,
            reason,
            place: Some(place),
        }
    }

    /// The same about `place`.
    pub(crate) fn in_place(self, place: Range) -> Self {
        Self::at(place, self.error, self.reason)
    }

    /// Gives a reason for an error of [`Charge::add`](kernel_ext::mm::Charge::add).
    pub(crate) fn charging(error: Error) -> Self {
        let reason = if error == ENOMEM {
            c"over RLIMIT_MEMLOCK"
        } else {
            c"the process ends"
        };
        Self::new(error, reason)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        refusal.error
    }
}

/// Gives a reason for an error.
pub(crate) fn because(reason: &'static CStr) -> impl Fn(Error) -> Refusal {
    move |error| Refusal::new(error, reason)
}

/// The range of `size` bytes from `start` on.
///
/// # Errors
///
/// `EINVAL` for no bytes, `EOVERFLOW` if it goes past the last address.
pub(crate) fn range(start: u64, size: u64) -> Granted<Range> {
    let reason = if size == 0 {
        c"no bytes"
    } else {
        c"goes past the last address"
    };
    Range::of_size(start, size).map_err(because(reason))
}
