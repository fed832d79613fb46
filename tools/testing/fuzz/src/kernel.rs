// SPDX-License-Identifier: GPL-2.0

//! What the kernel says about defects of its own.

use anyhow::{
    Context,
    Result, //
};
use std::{
    fs::File,
    io::Read,
    os::unix::fs::OpenOptionsExt, //
};

/// What a report begins with. `vm/run` knows more of them, and fails by any.
const SIGNS: [&str; 5] = [
    "BUG: ",
    "WARNING: ",
    "UBSAN: ",
    "INFO: task ",
    "refcount_t: ",
];

/// The kernel's log from some moment on.
#[derive(Debug)]
pub struct Log(File);

impl Log {
    /// Starts behind the last record.
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

    /// Returns the first line of the first report since the last time.
    pub fn complaint(&mut self) -> Option<String> {
        let mut first = None;
        let mut record = [0; 8192];
        // It ends with an error, as nothing is left.
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
