// SPDX-License-Identifier: GPL-2.0

//! Requests byte by byte, for programs that send invalid ones.
//!
//! Nothing here can harm the process: structures are copied into separate memory that ends at an
//! inaccessible page, and addresses must belong to a [`Memory`] or be unmappable.

use crate::{
    Bytes,
    Errno,
    Memory,
    abi, //
};
use std::os::fd::{
    AsFd,
    OwnedFd,
    RawFd, //
};

/// Sends a request without an argument.
pub fn none(fd: impl AsFd, nr: u32) -> Result<i32, Errno> {
    abi::ioctl_value(fd, nr, 0)
}

/// Sends a request whose argument is a number, or a pointer to an address that can never be mapped.
#[track_caller]
pub fn value(fd: impl AsFd, nr: u32, value: u64) -> Result<i32, Errno> {
    abi::ioctl_value(fd, nr, value)
}

/// Sends a structure and copies back what the kernel wrote.
#[track_caller]
pub fn bytes(fd: impl AsFd, nr: u32, bytes: &mut Bytes) -> Result<i32, Errno> {
    abi::ioctl_bytes(fd, nr, bytes.as_mut())
}

/// Sends a request with the address of a byte of `memory`.
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
pub fn duplicate(number: RawFd) -> Result<OwnedFd, Errno> {
    abi::duplicate(number)
}
