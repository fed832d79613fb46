// SPDX-License-Identifier: GPL-2.0

//! The state of the kernel, and its modules.

use crate::PAGE;
use anyhow::{
    Context,
    Result,
    ensure, //
};
use std::{
    fs,
    process::Command, //
};

/// Returns the size of the locked memory of this process, in KiB.
///
/// # Panics
///
/// If procfs does not show it.
pub fn locked_kib() -> u64 {
    match locked_kib_of("self") {
        Ok(size) => size,
        Err(error) => panic!("{error:?}"),
    }
}

/// Returns the number of locked pages of this process.
pub fn locked_pages() -> u64 {
    locked_kib() * 1024 / PAGE
}

/// Returns the size of the locked memory of a process, in KiB. `process` is a process id or "self".
pub fn locked_kib_of(process: impl std::fmt::Display) -> Result<u64> {
    let path = format!("/proc/{process}/status");
    let status = fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
    let size = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok());
    size.with_context(|| format!("{path} has no VmLck"))
}

/// Returns the value of a line of /proc/vmstat.
pub fn vmstat(name: &str) -> Result<u64> {
    // Each CPU keeps its own count for a while; this adds them up. Not all kernels have this file.
    let _ = fs::write("/proc/sys/vm/stat_refresh", "1");
    let text = fs::read_to_string("/proc/vmstat").context("/proc/vmstat")?;
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let value = lines.find_map(|(key, value)| (key == name).then_some(value));
    let value = value.with_context(|| format!("/proc/vmstat has no {name}"))?;
    Ok(value.parse()?)
}

/// Returns the number of pinned pages in the system.
pub fn pinned_pages() -> Result<i64> {
    // CAST: Counters of events do not reach 63 bits.
    Ok(vmstat("nr_foll_pin_acquired")? as i64 - vmstat("nr_foll_pin_released")? as i64)
}

/// Runs modprobe.
pub fn modprobe(words: &[&str]) -> Result<()> {
    let output = Command::new("modprobe").args(words).output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "modprobe {} failed: {}",
        words.join(" "),
        text.trim()
    );
    Ok(())
}
