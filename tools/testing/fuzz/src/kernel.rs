// SPDX-License-Identifier: GPL-2.0

//! Reports of kernel defects in the kernel log.

use anyhow::{
    Context,
    Result, //
};
use std::{
    fs::File,
    io::Read,
    os::unix::fs::OpenOptionsExt, //
};

/// The signs of a report. `vm/run` knows more of them, and fails on any.
const SIGNS: [&str; 5] = [
    "BUG: ",
    "WARNING: ",
    "UBSAN: ",
    "INFO: task ",
    "refcount_t: ",
];

/// The kernel log from a given moment on.
#[derive(Debug)]
pub struct Log(File);

impl Log {
    /// Starts after the last record.
    pub fn follow() -> Result<Self> {
        let file = File::options()
            .read(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .context("/dev/kmsg")?;
        let mut log = Self(file);
        log.complaint();
        Ok(log)
    }

    /// Returns the first line of the first report since the last call.
    pub fn complaint(&mut self) -> Option<String> {
        let mut first = None;
        let mut record = [0; 8192];
        // The read fails when no record is left.
        while let Ok(len) = self.0.read(&mut record) {
            let text = String::from_utf8_lossy(&record[..len]);
            let line = text.lines().next().unwrap_or_default();
            if first.is_none() && SIGNS.iter().any(|sign| line.contains(sign)) {
                first = Some(line.to_owned());
            }
        }
        first
    }
}
