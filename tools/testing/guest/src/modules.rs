// SPDX-License-Identifier: GPL-2.0

//! Loading and unloading modules.

use anyhow::{
    Context,
    Result, //
};
use nix::kmod::{
    DeleteModuleFlags,
    delete_module, //
};
use std::{
    ffi::CStr,
    fs::{
        self,
        File, //
    },
    path::Path, //
};
use vfio_client::Errno;

pub use support::machine::modprobe as load;

/// Unloads a module, unless it is in use.
pub fn unload(module: &CStr) -> nix::Result<()> {
    delete_module(module, DeleteModuleFlags::O_NONBLOCK)
}

/// Returns the number of references to a module, without those of modules that use it.
pub fn references(module: &str) -> Result<i64> {
    let text = fs::read_to_string(format!("/sys/module/{module}/refcnt"))?;
    Ok(text.trim().parse()?)
}

/// Opens files in debugfs, each of which holds a reference to the module, and calls `unload_users`.
/// Then the module cannot be unloaded until the files are closed. Unloads it.
pub fn debugfs_files_hold(
    module: &CStr,
    files: &[&str],
    unload_users: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let name = module.to_str()?;
    let mut open = Vec::new();
    for file in files {
        let path = Path::new("/sys/kernel/debug").join(file);
        let before = references(name)?;
        open.push(File::open(&path).with_context(|| path.display().to_string())?);
        assert_eq!(references(name)?, before + 1, "{file}");
    }
    unload_users()?;
    for file in open {
        assert_eq!(unload(module), Err(Errno::EAGAIN), "a file is open");
        drop(file);
    }
    Ok(unload(module)?)
}
