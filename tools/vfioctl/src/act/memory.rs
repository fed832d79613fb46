// SPDX-License-Identifier: GPL-2.0

//! The file that remembers which drivers devices had before `bind`.
//!
//! It is below `/run`: after a reboot, the devices have their drivers again.

use std::{
    fs::File,
    io::ErrorKind, //
};

use anyhow::{
    Context,
    Result, //
};
use nix::fcntl::{
    Flock,
    FlockArg, //
};

use super::replace;
use crate::{
    decide::plan::Memory,
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
        let folder = system.path(FOLDER);
        let path = folder.join("lock");
        let create = || {
            std::fs::create_dir_all(&folder)?;
            File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
        };
        let file = create().with_context(|| format!("opening {}", path.display()))?;
        let lock = Flock::lock(file, FlockArg::LockExclusive)
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
