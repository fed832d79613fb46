// SPDX-License-Identifier: GPL-2.0

//! Changes the machine.

pub mod allow;
pub mod bind;
pub mod mdev;
pub mod memory;
pub mod persist;

use std::{
    fs::{
        self,
        File, //
    },
    io::Write,
    path::Path, //
};

use anyhow::{
    Context,
    Result, //
};

use crate::system::System;

/// Writes to a file of the kernel, by its usual path. Unlike `fs::write`, it does not create one.
pub fn store(system: &System, usual: impl AsRef<Path>, text: &str) -> Result<()> {
    let usual = usual.as_ref();
    // One write: the kernel takes each one as a whole.
    let stored = File::options()
        .write(true)
        .open(system.path(usual))
        .and_then(|mut file| file.write_all(text.as_bytes()));
    stored.with_context(|| format!("writing '{}' to {}", text.trim_end(), usual.display()))
}

/// Replaces a file as a whole, or creates it.
pub fn replace(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = folder.join(format!(".{name}.new"));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&new, text))
        .and_then(|()| fs::rename(&new, path))
        .with_context(|| format!("writing {}", path.display()))
}
