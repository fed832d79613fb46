// SPDX-License-Identifier: GPL-2.0

//! The kernel log.

use anyhow::{
    Context,
    Result,
    bail,
    ensure, //
};
use nix::libc::{
    EPIPE,
    O_NONBLOCK, //
};
use std::{
    fs::File,
    io::Read,
    os::unix::fs::OpenOptionsExt,
    thread::sleep,
    time::{
        Duration,
        Instant, //
    },
};
use vfio_client::wait::until;

/// The starts of reports of kernel defects. `vm/run` knows more of them, and fails on any.
const DEFECTS: [&str; 5] = [
    "BUG: ",
    "WARNING: ",
    "UBSAN: ",
    "INFO: task ",
    "refcount_t: ",
];

/// The maximum size of a record of `/dev/kmsg`, with its prefix.
const RECORD: usize = 8192;

/// The interval of the rate limit for messages. Other tests may have reached the limit.
const INTERVAL: Duration = Duration::from_secs(6);

/// The kernel log from some point in time on.
#[derive(Debug)]
pub struct Log {
    file: File,
    text: String,
}

impl Log {
    /// Starts after the last record.
    pub fn follow() -> Result<Self> {
        let file = File::options()
            .read(true)
            .custom_flags(O_NONBLOCK)
            .open("/dev/kmsg")
            .context("/dev/kmsg")?;
        let mut log = Self {
            file,
            text: String::new(),
        };
        log.new_text();
        log.text.clear();
        Ok(log)
    }

    /// Reads new records. Returns their text, one line for each record.
    fn new_text(&mut self) -> &str {
        let old = self.text.len();
        let mut record = [0; RECORD];
        loop {
            match self.file.read(&mut record) {
                Ok(len) => {
                    let text = String::from_utf8_lossy(&record[..len]);
                    let message = text.split_once(';').map_or("", |(_, message)| message);
                    self.text += message.lines().next().unwrap_or_default();
                    self.text.push('\n');
                }
                // The kernel has overwritten records. The next read returns the oldest one left.
                Err(error) if error.raw_os_error() == Some(EPIPE) => {}
                // No record is left.
                Err(_) => return &self.text[old..],
            }
        }
    }

    /// Returns the text received so far, one line for each record.
    pub fn text(&mut self) -> &str {
        self.new_text();
        &self.text
    }

    /// Returns the first line of the first report of a kernel defect since the last call, and
    /// forgets the text.
    pub fn take_defect(&mut self) -> Option<String> {
        self.new_text();
        let text = std::mem::take(&mut self.text);
        let is_defect = |line: &&str| DEFECTS.iter().any(|start| line.contains(start));
        text.lines().find(is_defect).map(str::to_owned)
    }

    /// Waits for a line that contains all of `parts`.
    pub fn wait(&mut self, parts: &[&str], time: Duration) -> Result<()> {
        let found = until(time, || anyhow::Ok(self.has(parts)))?;
        ensure!(
            found,
            "expected a log message with {parts:?}, got:\n{}",
            self.text
        );
        Ok(())
    }

    /// Returns whether a line that contains all of `parts` has been received.
    pub fn has(&mut self, parts: &[&str]) -> bool {
        let all = |line: &str| parts.iter().all(|part| line.contains(part));
        self.text().lines().any(all)
    }
}

/// Calls `request` until a line that contains all of `parts` is logged.
pub fn says(parts: &[&str], mut request: impl FnMut() -> Result<()>) -> Result<()> {
    let mut log = Log::follow()?;
    let start = Instant::now();
    loop {
        let late = start.elapsed() > INTERVAL;
        request()?;
        if log.has(parts) {
            return Ok(());
        }
        if late {
            bail!(
                "expected a log message with {parts:?}, got:\n{}",
                log.text()
            );
        }
        sleep(Duration::from_millis(200));
    }
}
