// SPDX-License-Identifier: GPL-2.0

//! Requests byte by byte, for programs that send invalid ones: with the feature `testing` only.
//!
//! Structures are copied into separate memory that ends at an inaccessible page. The addresses in
//! the requests of [`request`](crate::request) must belong to a [`Memory`] or be unmappable. **The
//! addresses in other requests are not checked**: a program that sends such a request with an
//! address of something else can make the kernel overwrite it.

use crate::Errno;
#[cfg(feature = "testing")]
use crate::{
    Bytes,
    Memory,
    abi, //
};
use std::os::fd::AsFd;
#[cfg(feature = "testing")]
use std::os::fd::{
    OwnedFd,
    RawFd, //
};

/// Sends a request without an argument.
#[cfg(feature = "testing")]
pub fn none(fd: impl AsFd, nr: u32) -> Result<i32, Errno> {
    abi::ioctl_value(fd, nr, 0)
}

/// Sends a request whose argument is a number, or a pointer to an address that can never be mapped.
#[cfg(feature = "testing")]
#[track_caller]
pub fn value(fd: impl AsFd, nr: u32, value: u64) -> Result<i32, Errno> {
    abi::ioctl_value(fd, nr, value)
}

/// Sends a structure and copies back what the kernel wrote.
#[cfg(feature = "testing")]
#[track_caller]
pub fn bytes(fd: impl AsFd, nr: u32, bytes: &mut Bytes) -> Result<i32, Errno> {
    abi::ioctl_bytes(fd, nr, bytes.as_mut())
}

/// Sends a request with the address of a byte of `memory`.
#[cfg(feature = "testing")]
#[track_caller]
pub fn at(fd: impl AsFd, nr: u32, memory: &mut Memory, offset: usize) -> Result<i32, Errno> {
    abi::ioctl_at(fd, nr, memory, offset)
}

/// Reads from a file at an offset.
pub fn pread(fd: impl AsFd, out: &mut [u8], offset: u64) -> Result<usize, Errno> {
    // CAST: off_t carries the bit pattern.
    nix::sys::uio::pread(fd, out, offset as i64)
}

/// Writes to a file at an offset.
pub fn pwrite(fd: impl AsFd, data: &[u8], offset: u64) -> Result<usize, Errno> {
    // CAST: off_t carries the bit pattern.
    nix::sys::uio::pwrite(fd, data, offset as i64)
}

/// Duplicates the descriptor with the given number.
///
/// This takes over a descriptor that was received from a parent process or through a socket.
#[cfg(feature = "testing")]
pub fn duplicate(number: RawFd) -> Result<OwnedFd, Errno> {
    abi::duplicate(number)
}
