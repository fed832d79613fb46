// SPDX-License-Identifier: GPL-2.0

//! Checks the lock-free parts of `ioasid` against all interleavings of a few threads, by loom.
//!
//! The sources are those of the kernel module. What they use of the kernel is in `stand_in`: atomics with
//! the orderings of C11, of which those of the kernel guarantee no less.

#![cfg(test)]
// The tests of the module itself are for KUnit; some functions are for other files of the module. The
// kernel has lints of its own.
#![allow(unexpected_cfgs, dead_code, clippy::precedence)]

extern crate self as kernel;
extern crate self as kernel_ext;

mod stand_in;
mod table;

pub use stand_in::{bindings, prelude, read_once, sync};

#[path = "../../../../../ioasid/account.rs"]
mod account;
#[path = "../../../../../ioasid/entry.rs"]
mod entry;
#[path = "../../../../../ioasid/key.rs"]
mod key;
#[path = "../../../../../ioasid/life.rs"]
mod life;
#[path = "../../../../../ioasid/range.rs"]
mod range;
#[path = "../../../../../ioasid/set_id.rs"]
mod set_id;
#[path = "../../../../../ioasid/state.rs"]
mod state;

/// As in the module.
mod source {
    pub(crate) type Origin = u32;
    pub(crate) const OWN: Origin = 0;
}

mod accounts;
mod ids;
