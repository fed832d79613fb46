// SPDX-License-Identifier: GPL-2.0

//! Exit statuses, and the errors that lead to them.

use std::{
    fmt,
    io,
    process::ExitCode, //
};

/// The exit statuses, which the man page and `Documentation/vfioctl.rst` list.
///
/// clap exits with status 2 on a wrong command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// The request was fulfilled; for `why`: the device can be handed out.
    Done = 0,
    /// A system call failed, or a file of the kernel has unexpected contents.
    Failed = 1,
    /// There is no such device, group, process, user or type.
    NotFound = 3,
    /// The state of the machine forbids it; for `why`: the device cannot be handed out.
    Refused = 4,
    /// The caller lacks a privilege.
    Permission = 5,
    /// The loaded modules or the kernel do not have the feature.
    Unsupported = 6,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        // CAST: The enum is `repr(u8)`.
        ExitCode::from(status as u8)
    }
}

/// An error with an exit status of its own.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// The exit status.
    pub status: Status,
    /// The message, which says what to do next if that is known.
    pub text: String,
}

impl Failure {
    /// Returns an error for something that does not exist.
    pub fn not_found(text: impl fmt::Display) -> anyhow::Error {
        Self::error(Status::NotFound, text)
    }

    /// Returns an error for a request that the state of the machine forbids.
    pub fn refused(text: impl fmt::Display) -> anyhow::Error {
        Self::error(Status::Refused, text)
    }

    /// Returns an error for a privilege that is missing.
    pub fn permission(text: impl fmt::Display) -> anyhow::Error {
        Self::error(Status::Permission, text)
    }

    /// Returns an error for a feature that is missing.
    pub fn unsupported(text: impl fmt::Display) -> anyhow::Error {
        Self::error(Status::Unsupported, text)
    }

    fn error(status: Status, text: impl fmt::Display) -> anyhow::Error {
        let text = text.to_string();
        Self { status, text }.into()
    }
}

/// Returns the exit status for an error.
pub fn status_of(error: &anyhow::Error) -> Status {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.status;
    }
    let denied = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::PermissionDenied);
    if denied {
        Status::Permission
    } else {
        Status::Failed
    }
}

/// Returns whether an error is due to a reader of our output that has gone, such as `head`.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn an_error_keeps_its_status_below_context() {
        let refused = Failure::refused("busy");
        assert_eq!(status_of(&refused), Status::Refused);
        let io = Err::<(), _>(io::Error::from(io::ErrorKind::PermissionDenied));
        let denied = io.context("writing").unwrap_err();
        assert_eq!(status_of(&denied), Status::Permission);
        assert_eq!(status_of(&anyhow::anyhow!("other")), Status::Failed);
    }
}
