// SPDX-License-Identifier: GPL-2.0

//! Cgroups and the memory charged to them.

use anyhow::{
    Context,
    Result,
    ensure, //
};
use std::{
    fs,
    path::{
        Path,
        PathBuf, //
    },
    process::{
        self,
        Command, //
    },
    thread::sleep,
    time::Duration,
};

const ROOT: &str = "/sys/fs/cgroup";

/// A cgroup, which is removed when dropped.
#[derive(Debug)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Creates a cgroup.
    pub fn new(name: &str) -> Result<Self> {
        let root = Path::new(ROOT);
        if !root.join("cgroup.procs").exists() {
            let mount = ["-t", "cgroup2", "cgroup2", ROOT];
            let status = Command::new("mount").args(mount).status()?;
            ensure!(status.success(), "mount: {status}");
        }
        fs::write(root.join("cgroup.subtree_control"), "+memory")?;
        let folder = root.join(name);
        fs::create_dir(&folder)?;
        Ok(Self(folder))
    }

    /// Runs `what` with this process in the cgroup.
    pub fn during<T>(&self, what: impl FnOnce() -> Result<T>) -> Result<T> {
        enter(&self.0)?;
        let outcome = what();
        enter(Path::new(ROOT))?;
        outcome
    }

    /// Returns the number of bytes of a kind that are charged to the cgroup.
    pub fn bytes(&self, kind: &str) -> Result<u64> {
        let text = fs::read_to_string(self.0.join("memory.stat"))?;
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        let line = lines.find(|(name, _)| *name == kind);
        Ok(line.with_context(|| format!("no {kind}"))?.1.parse()?)
    }

    /// Waits until the number of bytes is as expected, because statistics are updated with a
    /// delay. Returns the last value read.
    pub fn wait_for(&self, kind: &str, expected: impl Fn(u64) -> bool) -> Result<u64> {
        for _ in 0..100 {
            let bytes = self.bytes(kind)?;
            if expected(bytes) {
                return Ok(bytes);
            }
            sleep(Duration::from_millis(100));
        }
        self.bytes(kind)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

/// Moves this process into a cgroup.
fn enter(folder: &Path) -> Result<()> {
    let path = folder.join("cgroup.procs");
    fs::write(&path, process::id().to_string()).with_context(|| path.display().to_string())
}
