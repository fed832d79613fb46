// SPDX-License-Identifier: GPL-2.0

//! Interrupts as eventfds.

use crate::{
    Error,
    Result, //
};
use nix::{
    errno::Errno,
    poll::{
        PollFd,
        PollFlags,
        PollTimeout,
        poll, //
    },
    sys::eventfd::{
        EfdFlags,
        EventFd, //
    },
};
use std::{
    os::fd::{
        AsFd,
        AsRawFd,
        BorrowedFd, //
    },
    time::Duration,
};

/// An eventfd that counts interrupts.
#[derive(Debug)]
pub struct Interrupt(EventFd);

impl Interrupt {
    /// Creates an eventfd.
    pub fn new() -> Result<Self> {
        EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map(Self)
            .map_err(Error::during("eventfd"))
    }

    /// Returns the descriptor number.
    pub fn number(&self) -> i32 {
        self.0.as_fd().as_raw_fd()
    }

    /// Waits for interrupts. Returns the number received, or 0 on timeout.
    pub fn wait(&self, timeout: Duration) -> Result<u64> {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut fds, timeout) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::new("poll", errno)),
                Ok(_) => return self.take(),
            }
        }
    }

    /// Returns the number of interrupts since the last call.
    pub fn take(&self) -> Result<u64> {
        match self.0.read() {
            Err(Errno::EAGAIN) => Ok(0),
            other => other.map_err(Error::during("read of eventfd")),
        }
    }

    /// Adds one to the counter, as a device's interrupt does.
    pub fn signal(&self) -> Result {
        self.0
            .write(1)
            .map(drop)
            .map_err(Error::during("write to eventfd"))
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
