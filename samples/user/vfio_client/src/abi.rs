// SPDX-License-Identifier: GPL-2.0

//! All unsafe code of the userspace programs.
//!
//! Three operations need unsafe code: ioctls, memory that the kernel or a device also writes, and
//! access to the bytes of C structures. The files below provide safe interfaces for them.

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
