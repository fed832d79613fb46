// SPDX-License-Identifier: GPL-2.0

//! All unsafe code of this crate.
//!
//! Two operations need unsafe code: system calls, and access to memory that the kernel or a device
//! also writes. The files below provide safe interfaces for them.

#![allow(unsafe_code)]

#[cfg(feature = "testing")]
mod arena;
mod file;
#[cfg(test)]
pub(crate) mod hostile;
mod ioctl;
mod memory;
mod registry;
#[cfg(feature = "testing")]
mod userfault;

#[cfg(feature = "testing")]
pub use arena::{
    Advice,
    Arena,
    Filling, //
};
pub use file::{
    pread,
    pwrite, //
};
pub(crate) use ioctl::{
    device_fd,
    fd_of,
    ioctl_bytes,
    ioctl_value,
    migration_fd, //
};
#[cfg(feature = "testing")]
pub(crate) use ioctl::{
    duplicate,
    ioctl_at, //
};
pub use memory::Memory;
#[cfg(feature = "testing")]
pub use userfault::{
    FaultOn,
    Userfault, //
};
