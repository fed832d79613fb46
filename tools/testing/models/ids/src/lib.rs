// SPDX-License-Identifier: GPL-2.0

//! Checks the lock-free parts of `ioasid` against all interleavings of a few threads, by loom.
//!
//! The sources are those of the kernel module. `stand_in` replaces the parts of the `kernel` crate
//! that they use. Its atomics have orderings of C11 that guarantee no more than those of the
//! kernel.

#![cfg(test)]
// The tests of the module itself are for KUnit; some functions are for other files of the module.
// The kernel has lints of its own.
#![allow(unexpected_cfgs, dead_code, clippy::precedence)]

extern crate self as kernel;
extern crate self as kernel_ext;

mod stand_in;
mod table;

pub use stand_in::{bindings, prelude, read_once, sync};

#[path = "../../../../../ioasid/set/account.rs"]
mod account;
#[path = "../../../../../ioasid/id/entry.rs"]
mod entry;
#[path = "../../../../../ioasid/set/identity.rs"]
mod identity;
#[path = "../../../../../ioasid/id/key.rs"]
mod key;
#[path = "../../../../../ioasid/id/range.rs"]
mod range;
#[path = "../../../../../ioasid/id/state.rs"]
mod state;

// The paths of these in the module.
mod id {
    pub(crate) use crate::{key, range, state};
}
mod set {
    pub(crate) use crate::identity::SetId;
}
mod allocator {
    pub(crate) type Origin = u32;
    pub(crate) const DEFAULT_ALLOCATOR: Origin = 0;
}

mod accounts;
mod ids;
