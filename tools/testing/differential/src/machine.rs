// SPDX-License-Identifier: GPL-2.0

//! The machine: groups, devices and module parameters.

use anyhow::Result;
use std::{
    fs,
    io, //
};
use support::{
    devices,
    pin, //
};
use vfio_client::Group;

/// The devices, each of which stands for its group: an `edu`, a disk, an `edu` whose group contains
/// a device with a host driver, and a device without an IOMMU whose driver pins pages.
pub const DEVICES: [&str; 4] = [devices::EDU, devices::NVME, devices::SHARED, pin::IN_C];

/// The `edu`.
pub const EDU: usize = 0;
/// The disk.
pub const DISK: usize = 1;
/// The device whose group is not viable.
pub const SHARED: usize = 2;
/// The device without an IOMMU.
pub const PIN: usize = 3;

/// The parameters of the type 1 backend.
pub const PARAMETERS: [&str; 3] = [
    "allow_unsafe_interrupts",
    "disable_hugepages",
    "dma_entry_limit",
];

/// The directory of the parameters.
const FOLDER: &str = "/sys/module/vfio_iommu_type1/parameters";

/// Opens the group of a device.
pub fn open_group(nth: usize) -> Result<vfio_client::Result<Group>> {
    Ok(Group::open(devices::group_number(DEVICES[nth])?))
}

/// Writes a parameter of the backend.
pub fn write_parameter(name: &str, value: &str) -> io::Result<()> {
    fs::write(format!("{FOLDER}/{name}"), value)
}

/// Reads a parameter of the backend.
pub fn read_parameter(name: &str) -> String {
    fs::read_to_string(format!("{FOLDER}/{name}"))
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Returns the reference counts of the modules.
pub fn module_references() -> String {
    let modules = fs::read_to_string("/proc/modules").unwrap_or_default();
    let mut counts: Vec<_> = modules
        .lines()
        .filter_map(|line| {
            let words: Vec<_> = line.split_ascii_whitespace().collect();
            let wanted = ["vfio_iommu_type1", "vfio_pci", "vfio_pci_core"];
            wanted
                .contains(&words[0])
                .then(|| format!("{}:{}", words[0], words[2]))
        })
        .collect();
    counts.sort();
    counts.join(",")
}
