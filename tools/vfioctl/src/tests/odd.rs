// SPDX-License-Identifier: GPL-2.0

//! Files that are missing, damaged or unexpected: no panic, and the rest is still shown.

use super::tree::{
    NewPci,
    Tree, //
};
use crate::{
    decide::{
        state::State,
        why::{
            Asker,
            why, //
        },
    },
    output::graph,
    system::{
        Snapshot,
        containers, //
    },
};

fn everything(snapshot: &Snapshot) {
    for device in snapshot.devices.values() {
        let verdict = why(snapshot, device, &Asker::default());
        assert_eq!(verdict.ready, verdict.obstacles.is_empty());
        State::of(snapshot, device).describe();
    }
    graph::text_of(snapshot);
}

#[test]
fn nothing_at_all() {
    let tree = Tree::empty();
    let snapshot = tree.snapshot();
    assert!(snapshot.devices.is_empty());
    everything(&snapshot);
    assert!(containers::read(&tree.system()).containers.is_empty());
}

#[test]
fn links_that_lead_nowhere() {
    let tree = Tree::new();
    tree.pci(NewPci {
        name: "0000:06:00.0",
        group: Some(7),
        ..NewPci::default()
    });
    // As a device that vanishes between two looks.
    tree.raw_link(
        "sys/kernel/iommu_groups/7/devices/0000:06:00.1",
        "../nowhere",
    );
    tree.raw_link("sys/bus/pci/devices/0000:06:00.1", "nowhere");
    tree.raw_link("sys/class/block/sda", "nowhere");
    tree.raw_link("sys/class/net/eth0", "nowhere");
    tree.raw_link("proc/10/fd/5", "/dev/vfio/99999999999");
    tree.raw_link("proc/10/fd/x", "/dev/vfio/7");
    tree.raw_link("proc/11/fd/5", "/dev/vfio/4711");
    let snapshot = tree.snapshot();
    assert_eq!(snapshot.devices.len(), 1);
    everything(&snapshot);
}

#[test]
fn contents_that_make_no_sense() {
    let tree = Tree::new();
    let folder = tree.pci(NewPci {
        name: "0000:06:00.0",
        group: Some(7),
        driver: Some("vfio-pci"),
        ..NewPci::default()
    });
    let odd = b"\xff\xfe\0 : ( ) - \xe2\x28\xa1 999999999999999999999999\n\n";
    for file in ["vendor", "device", "class", "driver_override", "boot_vga"] {
        tree.write(&format!("{folder}/{file}"), odd);
    }
    for file in [
        "proc/interrupts",
        "proc/swaps",
        "proc/self/mountinfo",
        "proc/net/route",
        "proc/net/ipv6_route",
        "proc/net/if_inet6",
        "proc/10/comm",
        "proc/10/maps",
        "proc/10/status",
        "proc/10/limits",
        "sys/kernel/iommu_groups/7/reserved_regions",
        "sys/kernel/iommu_groups/7/type",
        "sys/kernel/debug/vfio/groups/7",
        "sys/kernel/debug/vfio_iommu_type1/containers",
        "sys/class/tty/console/active",
        "dev/kmsg",
    ] {
        tree.write(file, odd);
    }
    tree.raw_link("proc/10/fd/5", "/dev/vfio/7");
    let snapshot = tree.snapshot();
    everything(&snapshot);
    assert_eq!(snapshot.holders.len(), 1);
    let system = tree.system();
    assert!(crate::system::limits::Limits::read(&system, "10").is_none());
    assert!(crate::system::log::limits_exceeded(&system).is_empty());
    containers::read(&system);
}

#[test]
fn files_in_the_place_of_folders() {
    let tree = Tree::empty();
    for file in [
        "sys/kernel/iommu_groups",
        "sys/bus/pci/devices",
        "sys/class/block",
        "proc/1",
    ] {
        tree.write(file, "");
    }
    everything(&tree.snapshot());
}
