// SPDX-License-Identifier: GPL-2.0

//! `vfioctl list`.

use anyhow::Result;
use serde::Serialize;

use super::{
    or_dash,
    print,
    print_json,
    table, //
};
use crate::{
    cli::ListOptions,
    decide::state::{
        State,
        blocking,
        is_viable, //
    },
    system::{
        Snapshot,
        devices::{
            Device,
            Group, //
        },
        host_use::HostUse,
        modules::Modules,
        processes::Holder, //
    },
};

#[derive(Serialize)]
struct ListedDevice<'a> {
    #[serde(flatten)]
    device: &'a Device,
    #[serde(flatten)]
    state: State,
    uses: &'a [HostUse],
}

#[derive(Serialize)]
struct ListedGroup<'a> {
    #[serde(flatten)]
    group: &'a Group,
    viable: bool,
    blocking: Vec<String>,
    holders: Vec<&'a Holder>,
    members: Vec<ListedDevice<'a>>,
}

#[derive(Serialize)]
struct Listed<'a> {
    modules: &'a Modules,
    iommus: &'a [String],
    groups: Vec<ListedGroup<'a>>,
    without_group: Vec<ListedDevice<'a>>,
}

fn listed<'a>(snapshot: &'a Snapshot, device: &'a Device) -> ListedDevice<'a> {
    ListedDevice {
        device,
        state: State::of(snapshot, device),
        uses: snapshot.uses_of(&device.name),
    }
}

fn without_group(snapshot: &Snapshot) -> impl Iterator<Item = &Device> {
    let devices = snapshot.devices.values();
    devices.filter(|device| snapshot.group_of(device).is_none())
}

/// Prints the list.
pub fn list(snapshot: &Snapshot, options: &ListOptions) -> Result<()> {
    if options.json {
        let groups = snapshot.groups.values().map(|group| ListedGroup {
            group,
            viable: is_viable(snapshot, group),
            blocking: blocking(snapshot, group),
            holders: snapshot.holders_of(group),
            members: snapshot
                .members(group)
                .map(|d| listed(snapshot, d))
                .collect(),
        });
        return print_json(&Listed {
            modules: &snapshot.modules,
            iommus: &snapshot.iommus,
            groups: groups.collect(),
            without_group: without_group(snapshot)
                .map(|d| listed(snapshot, d))
                .collect(),
        });
    }
    print(&text(snapshot, options.all))
}

fn text(snapshot: &Snapshot, all: bool) -> String {
    let row = |group: String, device: &Device| {
        vec![
            group,
            device.name.clone(),
            or_dash(device.model()),
            device.kind().to_owned(),
            or_dash(device.driver.as_deref()),
            State::of(snapshot, device).describe(),
        ]
    };
    let mut rows = Vec::new();
    for group in snapshot.groups.values() {
        let members = snapshot.members(group);
        rows.extend(members.map(|device| row(group.node_name(), device)));
    }
    let modules = snapshot.modules.describe();
    let others = without_group(snapshot).count();
    if all {
        rows.extend(without_group(snapshot).map(|device| row("-".to_owned(), device)));
    }
    let mut text = String::new();
    if rows.is_empty() {
        text += "There are no IOMMU groups: enable the IOMMU (VT-d, AMD-Vi) in the firmware; on Intel, \
                 boot with intel_iommu=on.\n";
    } else {
        text += &table(
            &["GROUP", "DEVICE", "MODEL", "KIND", "DRIVER", "STATE"],
            rows,
        );
    }
    text += &format!("Modules of VFIO: {modules}.\n");
    if others > 0 && !all {
        let are = if others == 1 {
            "device is"
        } else {
            "devices are"
        };
        text += &format!("{others} {are} in no group: 'vfioctl list --all' shows them.\n");
    }
    text
}
