// SPDX-License-Identifier: GPL-2.0

//! Loading and unloading modules.

use nix::kmod::{
    DeleteModuleFlags,
    delete_module, //
};
use std::ffi::CStr;

pub use support::machine::modprobe as load;

/// Unloads a module, unless it is in use.
pub fn unload(module: &CStr) -> nix::Result<()> {
    delete_module(module, DeleteModuleFlags::O_NONBLOCK)
}
