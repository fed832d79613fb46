// SPDX-License-Identifier: GPL-2.0

//! What the kernel logs from some moment on.

use anyhow::Result;
use std::{
    fs::File,
    io::{
        Read,
        Seek,
        SeekFrom, //
    },
    os::unix::fs::OpenOptionsExt,
};

/// The log, read up to some record.
#[derive(Debug)]
pub struct KernelLog(File);

impl KernelLog {
    /// Starts behind the last record.
    pub fn follow() -> Result<Self> {
        let mut file = File::options()
            .read(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open("/dev/kmsg")?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self(file))
    }

    /// Returns the messages since the last call, one a line.
    pub fn messages(&mut self) -> String {
        let mut record = [0; 8192];
        let mut found = String::new();
        while let Ok(len) = self.0.read(&mut record) {
            let text = String::from_utf8_lossy(&record[..len]);
            let message = text.split_once(';').map_or("", |(_, message)| message);
            found += message.lines().next().unwrap_or("");
            found.push('\n');
        }
        found
    }
}
