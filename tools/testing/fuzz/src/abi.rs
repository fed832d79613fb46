// SPDX-License-Identifier: GPL-2.0

//! The ioctls of KCOV, none of which takes an address.

#![allow(unsafe_code)]

use std::{
    fs::File,
    os::fd::AsRawFd, //
};

mod request {
    nix::ioctl_write_int_bad!(init_trace, 0x8008_6301);
    nix::ioctl_write_int_bad!(enable, 0x6364);
    nix::ioctl_write_int_bad!(disable, 0x6365);
}

/// The mode that traces program counters.
const TRACE_PC: i32 = 0;

/// Sets the size of a KCOV buffer in words. The caller maps the buffer afterwards.
pub fn init_trace(kcov: &File, words: i32) -> nix::Result<i32> {
    // SAFETY: KCOV takes the argument as a number.
    unsafe { request::init_trace(kcov.as_raw_fd(), words) }
}

/// Starts tracing this thread.
pub fn enable(kcov: &File) -> nix::Result<i32> {
    // SAFETY: KCOV takes the argument as a number. It writes only to its own buffer.
    unsafe { request::enable(kcov.as_raw_fd(), TRACE_PC) }
}

/// Stops tracing this thread.
pub fn disable(kcov: &File) -> nix::Result<i32> {
    // SAFETY: KCOV requires the argument to be 0.
    unsafe { request::disable(kcov.as_raw_fd(), 0) }
}
