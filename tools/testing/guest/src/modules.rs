// SPDX-License-Identifier: GPL-2.0

//! Loading and unloading modules.

use anyhow::{
    Result,
    ensure, //
};
use nix::kmod::{
    DeleteModuleFlags,
    delete_module, //
};
use std::{
    ffi::CStr,
    process::Command, //
};

/// Loads a module. `words` are its name and its parameters.
pub fn load(words: &[&str]) -> Result<()> {
    let output = Command::new("modprobe").args(words).output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "modprobe {words:?}: {text}");
    Ok(())
}

/// Unloads a module, unless it is in use.
pub fn unload(module: &CStr) -> nix::Result<()> {
    delete_module(module, DeleteModuleFlags::O_NONBLOCK)
}
