// SPDX-License-Identifier: GPL-2.0

//! The error type.

use nix::errno::Errno;

/// A failed call and its errno.
///
/// # Examples
///
/// ```
/// use vfio_client::{Errno, Group};
///
/// let error = Group::open(u32::MAX).unwrap_err();
/// assert_eq!(error.errno(), Errno::ENOENT);
/// assert!(error.to_string().starts_with("/dev/vfio/4294967295: ENOENT"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {errno}")]
pub struct Error {
    call: String,
    errno: Errno,
}

/// The result of most functions.
pub type Result<T = ()> = std::result::Result<T, Error>;

impl Error {
    /// Creates an error.
    pub fn new(call: impl Into<String>, errno: Errno) -> Self {
        Self {
            call: call.into(),
            errno,
        }
    }

    /// Returns a function that adds the name of the call to an errno.
    pub(crate) fn during(call: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self::new(call, errno)
    }

    /// Adds the name of the call to an error of the standard library.
    pub fn from_io(call: impl Into<String>, error: &std::io::Error) -> Self {
        Self::new(call, Errno::from_raw(error.raw_os_error().unwrap_or(0)))
    }

    /// Returns an error for an answer of the kernel that contradicts itself: `EPROTO`.
    pub(crate) fn malformed(call: &'static str) -> Self {
        Self::new(call, Errno::EPROTO)
    }

    /// Returns the errno.
    pub fn errno(&self) -> Errno {
        self.errno
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        Self::new(Self::from(error.errno).kind(), error)
    }
}
