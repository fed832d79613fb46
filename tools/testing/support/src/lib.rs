// SPDX-License-Identifier: GPL-2.0

//! What the test programs that run in a guest share.
//!
//! [`requests`] has the structures of the ioctls, for programs that send invalid ones, and [`pin`]
//! the requests to the drivers that pin pages. [`devices`] opens devices and groups. [`helper`]
//! runs a second process. [`kmsg`] reads the kernel log, [`machine`] the state of the kernel, and
//! [`cgroup`] makes cgroups. [`e1000e`] drives a network controller.

#![forbid(unsafe_code)]

pub mod cgroup;
pub mod devices;
pub mod e1000e;
pub mod helper;
pub mod kmsg;
pub mod machine;
pub mod pin;
pub mod requests;

/// The size of a page, in the type of IOVAs and sizes.
pub const PAGE: u64 = vfio_client::PAGE_SIZE as u64;
