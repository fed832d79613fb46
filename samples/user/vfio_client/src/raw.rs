// SPDX-License-Identifier: GPL-2.0

//! Requests byte by byte, for programs that send invalid ones: with the feature `testing` only.
//!
//! Structures are copied into separate memory that ends at an inaccessible page. The addresses in
//! the requests of [`request`](crate::request) must belong to a [`Memory`] or be unmappable. **The
//! addresses in other requests are not checked**: a program that sends such a request with an
//! address of something else can make the kernel overwrite it.

pub use crate::abi::{
    pread,
    pwrite, //
};
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

/// Duplicates the descriptor with the given number.
///
/// This takes over a descriptor that was received from a parent process or through a socket.
pub fn duplicate(number: RawFd) -> Result<OwnedFd, Errno> {
    abi::duplicate(number)
}
