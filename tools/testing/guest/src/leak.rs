// SPDX-License-Identifier: GPL-2.0

//! What must be the same after a case as before it.

use std::{
    collections::BTreeMap,
    fs,
    thread::sleep,
    time::{
        Duration,
        Instant, //
    },
};

/// The modules whose reference counts must come back.
const MODULES: [&str; 4] = ["vfio", "vfio_iommu_type1", "vfio_pci", "vfio_pci_core"];

/// The kernel frees some things a moment after the last close.
const PATIENCE: Duration = Duration::from_secs(2);

/// Returns how much memory the process has locked, in KiB.
pub fn locked_kib() -> u64 {
    fs::read_to_string("/proc/self/status")
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix("VmLck:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(u64::MAX)
}

/// Counters that a leak would change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<String, String>);

impl Snapshot {
    /// Reads all counters.
    pub fn take() -> Self {
        let mut values = BTreeMap::new();
        let mut note = |name: String, value: String| values.insert(name, value);
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();

        for line in read("/proc/self/status").lines() {
            if let Some((key, value)) = line.split_once(':') {
                if key == "VmLck" || key == "VmPin" {
                    note(key.to_owned(), value.trim().to_owned());
                }
            }
        }
        for line in read("/proc/vmstat").lines() {
            if let Some(("nr_iommu_pages", value)) = line.split_once(' ') {
                note("nr_iommu_pages".to_owned(), value.to_owned());
            }
        }
        for line in read("/proc/modules").lines() {
            let words: Vec<_> = line.split_ascii_whitespace().collect();
            if let [name, _, count, ..] = words[..] {
                if MODULES.contains(&name) {
                    note(format!("references of {name}"), count.to_owned());
                }
            }
        }
        for entry in fs::read_dir("/dev/vfio").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "vfio" {
                let state = fs::File::open(entry.path())
                    .map_or_else(|error| error.to_string(), |_| "can be opened".to_owned());
                note(format!("group {name}"), state);
            }
        }
        let fds = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        note("descriptors".to_owned(), fds.to_string());
        Self(values)
    }

    /// Waits until the counters are as before; otherwise says what differs.
    pub fn settle(&self) -> Result<(), String> {
        let start = Instant::now();
        loop {
            let now = Self::take();
            if now == *self {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                return Err(self.difference(&now));
            }
            sleep(Duration::from_millis(20));
        }
    }

    fn difference(&self, now: &Self) -> String {
        let names: std::collections::BTreeSet<_> = self.0.keys().chain(now.0.keys()).collect();
        let of = |s: &Self, name: &str| s.0.get(name).cloned().unwrap_or("nothing".to_owned());
        let differing = names
            .into_iter()
            .filter(|name| self.0.get(*name) != now.0.get(*name));
        let lines: Vec<_> = differing
            .map(|name| {
                format!(
                    "leak: {name}: was {}, is {}\n",
                    of(self, name),
                    of(now, name)
                )
            })
            .collect();
        lines.concat()
    }
}
