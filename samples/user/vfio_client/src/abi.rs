// SPDX-License-Identifier: GPL-2.0

//! The only home of unsafe code in the userspace programs.
//!
//! Three things can't be said in safe Rust: an ioctl, memory that somebody else (the kernel, a
//! device) writes, and the bytes of a C structure. They have files here with a safe interface.

#![allow(unsafe_code)]

mod arena;
mod ioctl;
mod memory;
mod payload;
mod registry;
mod userfault;

pub use arena::{
    Advice,
    Arena,
    Filling, //
};
pub(crate) use ioctl::{
    device_fd,
    duplicate,
    fd_of,
    ioctl_at,
    ioctl_bytes,
    ioctl_value, //
};
pub use memory::Memory;
pub(crate) use payload::{
    bytes_of,
    from_bytes, //
};
pub use userfault::{
    FaultOn,
    Userfault, //
};
