// SPDX-License-Identifier: GPL-2.0

//! Changes the machine.

pub mod allow;
pub mod bind;
pub mod interrupt;
pub mod mdev;
pub mod memory;
pub mod persist;

use std::{
    fs::{
        self,
        File, //
    },
    io::{
        ErrorKind,
        Write, //
    },
    os::unix::fs::{
        DirBuilderExt,
        OpenOptionsExt, //
    },
    path::Path, //
};

use anyhow::{
    Context,
    Result, //
};

use nix::fcntl::OFlag;

use crate::{
    status::Failure,
    system::System, //
};

/// Writes to a file of the kernel, by its usual path. Unlike `fs::write`, it does not create one.
pub fn store(system: &System, usual: impl AsRef<Path>, text: &str) -> Result<()> {
    let usual = usual.as_ref();
    // One write: the kernel takes each one as a whole.
    let stored = File::options()
        .write(true)
        .open(system.path(usual))
        .and_then(|mut file| file.write_all(text.as_bytes()));
    match stored {
        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => Err(read_only()),
        other => {
            other.with_context(|| format!("writing '{}' to {}", text.trim_end(), usual.display()))
        }
    }
}

/// The error of a file system of the kernel that does not accept changes.
fn read_only() -> anyhow::Error {
    Failure::permission("/sys is mounted read-only, as in a container: run vfioctl on the host")
}

/// Fails if the file systems of the kernel do not accept changes, before anything is changed.
pub fn check_writable(system: &System) -> Result<()> {
    use nix::unistd::{
        AccessFlags,
        access, //
    };
    match access(&system.path("/sys/bus"), AccessFlags::W_OK) {
        Err(nix::errno::Errno::EROFS) => Err(read_only()),
        _ => Ok(()),
    }
}

/// Makes a folder that only root can change, whatever the caller's umask is.
pub fn make_folder(path: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
}

/// Replaces a file as a whole, or creates it. Only root can change it, whatever the caller's umask
/// is. The new contents are on the disk before the old ones are gone.
pub fn replace(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = folder.join(format!(".{name}.new"));
    let write = || {
        make_folder(folder)?;
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().with_context(|| format!("writing {}", path.display()))
}
