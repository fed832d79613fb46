// SPDX-License-Identifier: GPL-2.0

//! What the kernel's log says about limits of locked memory.

use std::{
    fs::File,
    io::Read,
    os::unix::fs::OpenOptionsExt, //
};

use nix::{
    errno::Errno,
    fcntl::OFlag, //
};
use serde::Serialize;

use super::System;

/// A request to map memory that the limit of a process prevented.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct LimitExceeded {
    /// The process, if the message names it.
    pub pid: Option<u32>,
    /// The name of the process, if the message names it.
    pub command: Option<String>,
    /// The size of the locked memory that the request would have led to, in bytes, if the message
    /// has it.
    pub needed: Option<u64>,
}

impl LimitExceeded {
    /// Parses a message of the modules in C or in Rust.
    fn parse(message: &str) -> Option<Self> {
        if let Some((before, after)) = message.split_once(": RLIMIT_MEMLOCK exceeded: ") {
            // vfio_rust: COMMAND (PID): RLIMIT_MEMLOCK exceeded: N KiB more needed, N KiB locked, ...
            let (command, pid) = task(before.split_once(": ").map_or(before, |(_, task)| task))?;
            let mut numbers = after.split(", ").map(|part| {
                let number = part.split(' ').next()?;
                number.parse::<u64>().ok()
            });
            let needed = numbers.next()??.checked_add(numbers.next()??)?;
            return Some(Self {
                pid: Some(pid),
                command: Some(command),
                needed: needed.checked_mul(1024),
            });
        }
        let (before, _) = message.split_once("RLIMIT_MEMLOCK (")?;
        // FUNCTION: Task COMMAND (PID) RLIMIT_MEMLOCK (N) exceeded, or without the task.
        let task = before
            .split_once("Task ")
            .and_then(|(_, text)| task(text.trim_end()));
        let (command, pid) = task.unzip();
        Some(Self {
            pid,
            command,
            needed: None,
        })
    }
}

/// Parses `COMMAND (PID)`. The command may contain anything.
fn task(text: &str) -> Option<(String, u32)> {
    let (command, pid) = text.strip_suffix(')')?.rsplit_once(" (")?;
    Some((command.to_owned(), pid.parse().ok()?))
}

/// Returns all such messages in the log, oldest first; none if it cannot be read.
pub fn limits_exceeded(system: &System) -> Vec<LimitExceeded> {
    let messages = messages(system);
    let found = messages
        .iter()
        .filter_map(|text| LimitExceeded::parse(text));
    found.collect()
}

fn messages(system: &System) -> Vec<String> {
    let opened = File::options()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(system.path("/dev/kmsg"));
    let Ok(mut file) = opened else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut record = [0; 16 << 10];
    loop {
        match file.read(&mut record) {
            Ok(0) => return found,
            Ok(length) => {
                // A regular file has many records in one read.
                let text = String::from_utf8_lossy(&record[..length]).into_owned();
                let texts = text.lines().filter_map(|line| line.split_once(';'));
                found.extend(texts.map(|(_, text)| text.to_owned()));
            }
            // The record was overwritten before it was read; the next read continues after it.
            Err(error) if error.raw_os_error() == Some(Errno::EPIPE as i32) => {}
            Err(error) if error.raw_os_error() == Some(Errno::EINTR as i32) => {}
            // EAGAIN: the end.
            Err(_) => return found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_both_languages() {
        let rust = "vfio_rust: dpdk (x) (812): RLIMIT_MEMLOCK exceeded: 1048576 KiB more needed, \
                    4 KiB locked, limit 8192 KiB; raise the limit or grant CAP_IPC_LOCK";
        let parsed = LimitExceeded::parse(rust).unwrap();
        assert_eq!(parsed.pid, Some(812));
        assert_eq!(parsed.command.as_deref(), Some("dpdk (x)"));
        assert_eq!(parsed.needed, Some((1 << 30) + 4096));
        let c = "vfio_pin_page_external: Task qemu (5) RLIMIT_MEMLOCK (65536) exceeded";
        let parsed = LimitExceeded::parse(c).unwrap();
        assert_eq!((parsed.pid, parsed.needed), (Some(5), None));
        let c = "vfio_pin_pages_remote: RLIMIT_MEMLOCK (65536) exceeded";
        assert_eq!(LimitExceeded::parse(c).unwrap().pid, None);
        assert_eq!(LimitExceeded::parse("RLIMIT_MEMLOCK"), None);
        assert_eq!(LimitExceeded::parse(": RLIMIT_MEMLOCK exceeded: x"), None);
    }
}
