// SPDX-License-Identifier: GPL-2.0

//! All unsafe code of the userspace programs.
//!
//! Two operations need unsafe code: system calls, and access to memory that the kernel or a device
//! also writes. The files below provide safe interfaces for them.

#![allow(unsafe_code)]

mod arena;
mod ioctl;
mod memory;
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
pub use userfault::{
    FaultOn,
    Userfault, //
};
