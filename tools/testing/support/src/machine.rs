// SPDX-License-Identifier: GPL-2.0

//! The state of the kernel, and its modules.

use anyhow::{
    Context,
    Result,
    ensure, //
};
use std::{
    fs,
    path::Path,
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

/// Returns the size of the locked memory of a process, in KiB. `process` is a process id or "self".
pub fn locked_kib_of(process: impl std::fmt::Display) -> Result<u64> {
    let path = format!("/proc/{process}/status");
    let status = fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
    let size = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok());
    size.with_context(|| format!("{path} has no VmLck"))
}

/// Returns the number of pinned pages in the system.
pub fn pinned_pages() -> Result<i64> {
    // Each CPU keeps its own count for a while; this adds them up.
    fs::write("/proc/sys/vm/stat_refresh", "1").context("stat_refresh")?;
    let text = fs::read_to_string("/proc/vmstat")?;
    let value = |name: &str| -> Result<i64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value = line.with_context(|| format!("/proc/vmstat has no {name}"))?;
        Ok(value.trim().parse()?)
    };
    Ok(value("nr_foll_pin_acquired ")? - value("nr_foll_pin_released ")?)
}

/// Returns the number of the IOMMU group of a device, given by its sysfs directory.
pub fn group_number(device: impl AsRef<Path>) -> Result<u32> {
    let link = device.as_ref().join("iommu_group");
    let target = fs::read_link(&link).with_context(|| link.display().to_string())?;
    let name = target.file_name().and_then(|name| name.to_str());
    let number = name.and_then(|name| name.parse().ok());
    number.with_context(|| format!("{} leads to {}", link.display(), target.display()))
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
