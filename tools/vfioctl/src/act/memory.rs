// SPDX-License-Identifier: GPL-2.0

//! The file that remembers which drivers devices had before `bind`.
//!
//! It is below `/run`: after a reboot, the devices have their drivers again.

use std::{
    fs::{
        File,
        Permissions, //
    },
    io::ErrorKind,
    os::unix::fs::{
        OpenOptionsExt,
        PermissionsExt, //
    },
};

use anyhow::{
    Context,
    Result, //
};
use nix::{
    errno::Errno,
    fcntl::{
        Flock,
        FlockArg, //
    },
};

use super::{
    check_writable,
    make_folder,
    replace, //
};
use crate::{
    decide::plan::Memory,
    output::complain,
    system::System, //
};

const FOLDER: &str = "/run/vfioctl";
const FILE: &str = "/run/vfioctl/devices.json";

/// The file, locked against other calls of this program until this is dropped.
pub struct Locked<'a> {
    system: &'a System,
    _lock: Flock<File>,
    /// What it remembers.
    pub memory: Memory,
}

impl<'a> Locked<'a> {
    /// Waits for the lock, and reads the file.
    pub fn open(system: &'a System) -> Result<Self> {
        check_writable(system)?;
        let folder = system.path(FOLDER);
        let path = folder.join("lock");
        let create = || {
            make_folder(&folder)?;
            let file = File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)?;
            // Who may open it could hold the lock forever.
            file.set_permissions(Permissions::from_mode(0o600))?;
            Ok::<_, std::io::Error>(file)
        };
        let file = create().with_context(|| format!("opening {}", path.display()))?;
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Err((file, Errno::EWOULDBLOCK)) => {
                complain("vfioctl: waiting for another vfioctl, which changes devices\n");
                Flock::lock(file, FlockArg::LockExclusive)
            }
            other => other,
        };
        let lock = lock
            .map_err(|(_, error)| std::io::Error::from(error))
            .with_context(|| format!("locking {}", path.display()))?;
        Ok(Self {
            memory: read(system)?,
            system,
            _lock: lock,
        })
    }

    /// Writes the file.
    pub fn save(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.memory)? + "\n";
        replace(&self.system.path(FILE), &text)
    }
}

/// Reads the file without the lock.
pub fn read(system: &System) -> Result<Memory> {
    let path = system.path(FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).with_context(|| {
            format!(
                "{}: remove the file, its contents are damaged",
                path.display()
            )
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Memory::new()),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}
