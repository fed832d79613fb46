// SPDX-License-Identifier: GPL-2.0

//! Cgroups and the memory charged to them.

use anyhow::{
    Context,
    Result, //
};
use nix::mount::{
    MsFlags,
    mount, //
};
use std::{
    fs,
    path::{
        Path,
        PathBuf, //
    },
    process,
    time::Duration, //
};
use vfio_client::wait::until;

const ROOT: &str = "/sys/fs/cgroup";

/// The statistics of a cgroup are updated with a delay.
const DELAY: Duration = Duration::from_secs(10);

/// A cgroup, which is removed when dropped.
#[derive(Debug)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Creates a cgroup with the memory controller. Mounts the file system if necessary.
    pub fn new(name: &str) -> Result<Self> {
        let root = Path::new(ROOT);
        if !root.join("cgroup.procs").exists() {
            let kind = Some("cgroup2");
            mount(kind, root, kind, MsFlags::empty(), None::<&str>).context(ROOT)?;
        }
        write(&root.join("cgroup.subtree_control"), "+memory")?;
        let folder = root.join(name);
        fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        Ok(Self(folder))
    }

    /// Runs `body` with this process in the cgroup.
    pub fn during<T>(&self, body: impl FnOnce() -> Result<T>) -> Result<T> {
        self.add(process::id())?;
        let outcome = body();
        move_to(Path::new(ROOT), process::id())?;
        outcome
    }

    /// Moves a process into the cgroup.
    pub fn add(&self, process: u32) -> Result<()> {
        move_to(&self.0, process)
    }

    /// Writes a file of the cgroup, such as `memory.max`.
    pub fn set(&self, file: &str, value: &str) -> Result<()> {
        write(&self.0.join(file), value)
    }

    /// Returns the number of bytes of a kind that are charged to the cgroup.
    pub fn bytes(&self, kind: &str) -> Result<u64> {
        self.value("memory.stat", kind)
    }

    /// Returns how often the OOM killer killed a process of the cgroup.
    pub fn oom_kills(&self) -> Result<u64> {
        self.value("memory.events", "oom_kill")
    }

    /// Returns the value of a name from a file with one pair in each line.
    fn value(&self, file: &str, name: &str) -> Result<u64> {
        let path = self.0.join(file);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let mut pairs = text.lines().filter_map(|line| line.split_once(' '));
        let (_, value) = pairs
            .find(|(found, _)| *found == name)
            .with_context(|| format!("{} has no {name}", path.display()))?;
        Ok(value.parse()?)
    }

    /// Waits until the number of bytes is as expected. Returns the last value read.
    pub fn wait_for(&self, kind: &str, expected: impl Fn(u64) -> bool) -> Result<u64> {
        let mut bytes = 0;
        until(DELAY, || {
            bytes = self.bytes(kind)?;
            anyhow::Ok(expected(bytes))
        })?;
        Ok(bytes)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Moves a process into the cgroup of a directory.
fn move_to(folder: &Path, process: u32) -> Result<()> {
    write(&folder.join("cgroup.procs"), &process.to_string())
}

fn write(path: &Path, value: &str) -> Result<()> {
    fs::write(path, value).with_context(|| format!("writing {value} to {}", path.display()))
}
