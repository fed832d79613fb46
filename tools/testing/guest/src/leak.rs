// SPDX-License-Identifier: GPL-2.0

//! Values that a case must leave unchanged.

use std::{
    collections::{
        BTreeMap,
        BTreeSet, //
    },
    convert::Infallible,
    fs,
    sync::atomic::{
        AtomicBool,
        Ordering, //
    },
    time::Duration, //
};
use vfio_client::wait::until;

pub use support::machine::locked_kib;

/// The modules whose reference counts are checked.
const MODULES: [&str; 17] = [
    "vfio_iommu_pamu",
    "pamu_sim",
    "pamu_dma",
    "vfio",
    "vfio_iommu_type1",
    "vfio_pci",
    "vfio_pci_core",
    "vfio_rust",
    "iommufd",
    "iommu_group",
    "mdev",
    "mtty",
    "mdpy",
    "mbochs",
    "vfio_pin_test",
    "mdev_pin_test",
    "vfio_mdev_test",
];

/// The counter of pages for IOMMU page tables.
const IOMMU_PAGES: &str = "nr_iommu_pages";

/// The kernel frees some objects shortly after the last close.
const PATIENCE: Duration = Duration::from_secs(30);

/// The time to wait after something has leaked: a leak in each case must not take the time of all.
const IMPATIENCE: Duration = Duration::from_secs(2);

static HAS_LEAKED: AtomicBool = AtomicBool::new(false);

/// Counters that a leak would change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<String, String>);

/// Returns the names of the VFIO nodes in a folder, and what comes of opening each.
fn nodes(folder: &str) -> impl Iterator<Item = (String, String)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_node = name != "vfio" && name != "devices";
        let open = || match fs::File::open(entry.path()) {
            Ok(_) => "can be opened".to_owned(),
            Err(error) => error.to_string(),
        };
        is_node.then(|| (name, open()))
    })
}

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
        // Each CPU keeps its own count for a while; this adds them up. Not all kernels have this
        // file.
        let _ = fs::write("/proc/sys/vm/stat_refresh", "1");
        for line in read("/proc/vmstat").lines() {
            if let Some((IOMMU_PAGES, value)) = line.split_once(' ') {
                note(IOMMU_PAGES.to_owned(), value.to_owned());
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
        for (name, state) in nodes("/dev/vfio") {
            note(format!("group {name}"), state);
        }
        // By their states only: a device that a test replaces gets another number.
        let mut devices = BTreeMap::<_, usize>::new();
        for (_, state) in nodes("/dev/vfio/devices") {
            *devices.entry(state).or_default() += 1;
        }
        for (state, count) in devices {
            note(format!("device files: {state}"), count.to_string());
        }
        let fds = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        note("descriptors".to_owned(), fds.to_string());
        Self(values)
    }

    /// Waits until all counters have their former values. Otherwise returns the differences.
    pub fn settle(&self) -> Result<(), String> {
        let patience = if HAS_LEAKED.load(Ordering::Relaxed) {
            IMPATIENCE
        } else {
            PATIENCE
        };
        let mut leaks = Vec::new();
        let Ok(clean) = until(patience, || {
            leaks = self.leaks(&Self::take());
            Ok::<_, Infallible>(leaks.is_empty())
        });
        if clean {
            return Ok(());
        }
        HAS_LEAKED.store(true, Ordering::Relaxed);
        Err(leaks.concat())
    }

    /// Returns a line for each counter that has changed.
    fn leaks(&self, now: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        let names: BTreeSet<_> = self.0.keys().chain(now.0.keys()).collect();
        for name in names {
            let of = |s: &Self| s.0.get(name).cloned().unwrap_or("nothing".to_owned());
            let (before, now) = (of(self), of(now));
            // An IOMMU driver may free pages that it had cached.
            let fewer = name == IOMMU_PAGES
                && matches!((before.parse(), now.parse::<u64>()), (Ok(b), Ok(n)) if n <= b);
            if before != now && !fewer {
                lines.push(format!("leak: {name}: was {before}, is {now}\n"));
            }
        }
        lines
    }
}
