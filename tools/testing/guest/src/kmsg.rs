// SPDX-License-Identifier: GPL-2.0

//! The kernel log.

use anyhow::{
    Context,
    Result,
    bail,
    ensure, //
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
            .custom_flags(nix::libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .context("/dev/kmsg")?;
        let mut log = Self {
            file,
            text: String::new(),
        };
        log.read();
        log.text.clear();
        Ok(log)
    }

    /// Reads new records.
    fn read(&mut self) {
        let mut record = [0; 2048];
        while let Ok(len) = self.file.read(&mut record) {
            let text = String::from_utf8_lossy(&record[..len]);
            let message = text.split_once(';').map_or("", |(_, message)| message);
            self.text += message.lines().next().unwrap_or_default();
            self.text.push('\n');
        }
    }

    /// Returns the text received so far, one line for each record.
    pub fn text(&mut self) -> &str {
        self.read();
        &self.text
    }

    /// Waits for a line that contains all of `parts`.
    pub fn wait(&mut self, parts: &[&str], time: Duration) -> Result<()> {
        let said = until(time, || anyhow::Ok(self.has(parts)))?;
        ensure!(said, "no line with {parts:?} in:\n{}", self.text);
        Ok(())
    }

    /// Returns whether a line that contains all of `parts` has been received.
    pub fn has(&mut self, parts: &[&str]) -> bool {
        let all = |line: &str| parts.iter().all(|part| line.contains(part));
        self.text().lines().any(all)
    }
}

/// The interval of the rate limit for messages. Other cases may have reached the limit.
const INTERVAL: Duration = Duration::from_secs(6);

/// Calls `ask` until a line that contains all of `parts` is logged.
pub fn says(parts: &[&str], mut ask: impl FnMut() -> Result<()>) -> Result<()> {
    let mut log = Log::follow()?;
    let start = Instant::now();
    loop {
        let late = start.elapsed() > INTERVAL;
        ask()?;
        if log.has(parts) {
            return Ok(());
        }
        if late {
            bail!("no line with {parts:?} in:\n{}", log.text());
        }
        sleep(Duration::from_millis(200));
    }
}
