// SPDX-License-Identifier: GPL-2.0

//! The requests of KCOV, none of which takes an address.

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

/// Has a file of KCOV hold so many words, which are to be mapped.
pub fn init_trace(kcov: &File, words: i32) -> nix::Result<i32> {
    // SAFETY: KCOV takes the argument as a number.
    unsafe { request::init_trace(kcov.as_raw_fd(), words) }
}

/// Begins to trace this thread.
pub fn enable(kcov: &File) -> nix::Result<i32> {
    // SAFETY: KCOV takes the argument as a number. What it writes to is its own.
    unsafe { request::enable(kcov.as_raw_fd(), TRACE_PC) }
}

/// Ends it.
pub fn disable(kcov: &File) -> nix::Result<i32> {
    // SAFETY: KCOV wants the argument to be 0.
    unsafe { request::disable(kcov.as_raw_fd(), 0) }
}
