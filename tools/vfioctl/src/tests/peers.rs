// SPDX-License-Identifier: GPL-2.0

//! Devices join and leave groups of peers.

use super::tree::Tree;
use crate::act::mdev;

const DEVICES: [&str; 3] = [
    "11111111-1111-4111-8111-111111111111",
    "22222222-2222-4222-8222-222222222222",
    "33333333-3333-4333-8333-333333333333",
];
/// A file that can be read, but not written, also by root.
const READ_ONLY: &str = "/proc/sys/kernel/ostype";

/// Returns the name of a device's attribute.
fn attribute(device: &str) -> String {
    format!("sys/devices/virtual/card/{device}/peer_to_peer_resource_uuid")
}

/// Adds a mediated device in the IOMMU group with this number, without the attribute.
fn add(tree: &Tree, device: &str, group: usize) {
    let folder = format!("sys/devices/virtual/card/{device}");
    let group = format!("sys/kernel/iommu_groups/{group}");
    tree.link(&format!("{folder}/subsystem"), "sys/bus/mdev");
    tree.link(&format!("sys/bus/mdev/devices/{device}"), &folder);
    tree.link(&format!("{group}/devices/{device}"), &folder);
    tree.link(&format!("{folder}/iommu_group"), &group);
}

/// Groups all devices. Returns the error.
fn group(tree: &Tree) -> String {
    let grouped = mdev::group(&tree.system(), &DEVICES.map(str::to_owned));
    format!("{:#}", grouped.unwrap_err())
}

/// A device whose write failed kept its group, so it isn't written again.
#[test]
fn only_devices_that_changed_get_their_groups_back() {
    let tree = Tree::new();
    // The first two are in one group already.
    for (device, number) in DEVICES.into_iter().zip([1, 1, 3]) {
        add(&tree, device, number);
    }
    tree.write(&attribute(DEVICES[0]), "a");
    tree.write(&attribute(DEVICES[1]), "b");
    tree.raw_link(&attribute(DEVICES[2]), READ_ONLY);
    let text = group(&tree);
    assert!(text.starts_with("nothing was changed: "), "{text}");
    assert_eq!(tree.read(&attribute(DEVICES[0])), "a");
    assert_eq!(tree.read(&attribute(DEVICES[1])), "b");
}

/// A device that can't share was given another group, so it is written again.
#[test]
fn a_device_that_cannot_share_gets_its_group_back() {
    let tree = Tree::new();
    for (number, device) in DEVICES.into_iter().enumerate() {
        add(&tree, device, number.min(1));
        tree.write(&attribute(device), device);
    }
    let text = group(&tree);
    assert!(text.contains("can't share a group"), "{text}");
    assert!(text.contains("nothing was changed"), "{text}");
    for device in DEVICES {
        assert_eq!(tree.read(&attribute(device)), device);
    }
}
