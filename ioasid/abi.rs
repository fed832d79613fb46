// SPDX-License-Identifier: GPL-2.0

//! The interface to C, and the only unsafe code of this crate.

pub(crate) mod callbacks;
mod exports;
mod hooks;
pub(crate) mod system;
pub(crate) mod trace;
