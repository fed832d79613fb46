// SPDX-License-Identifier: GPL-2.0

//! What differs between the releases of the `kernel` crate.
//!
//! The other sources use these names, which are those of Linux 7.3, and build for each release.

// Kbuild defines it, from the release of the kernel that the modules are built for.
#[cfg(before_7_3)]
#[path = "compat/before_7_3.rs"]
mod release;
#[cfg(not(before_7_3))]
#[path = "compat/since_7_3.rs"]
mod release;

pub use release::*;
