// SPDX-License-Identifier: GPL-2.0

//! `vfioctl mdev` and `vfioctl peers`.

use std::collections::BTreeMap;

use anyhow::Result;

use super::{
    or_dash,
    print,
    print_json,
    table, //
};
use crate::{
    act::mdev::Type,
    decide::state::State,
    system::{
        Snapshot,
        devices::Device, //
    },
};

fn devices(snapshot: &Snapshot) -> Vec<&Device> {
    let devices = snapshot.devices.values();
    devices.filter(|device| device.mdev.is_some()).collect()
}

/// Prints the mediated devices.
pub fn list(snapshot: &Snapshot, json: bool) -> Result<()> {
    let devices = devices(snapshot);
    if json {
        return print_json(&devices);
    }
    if devices.is_empty() {
        return print(
            "There are no mediated devices: 'vfioctl mdev types' shows what can be created.\n",
        );
    }
    let rows = devices.iter().map(|device| {
        let mdev = device.mdev.clone().unwrap_or_default();
        vec![
            device.name.clone(),
            mdev.parent,
            mdev.kind,
            or_dash(device.group.map(|group| group.to_string())),
            State::of(snapshot, device).describe(),
        ]
    });
    print(&table(&["UUID", "PARENT", "TYPE", "GROUP", "STATE"], rows))
}

/// Prints the types of mediated devices.
pub fn types(types: &[Type], json: bool) -> Result<()> {
    if json {
        return print_json(&types);
    }
    if types.is_empty() {
        return print("There are no types: load a driver that has mediated devices.\n");
    }
    let rows = types.iter().map(|found| {
        vec![
            found.parent.clone(),
            found.kind.clone(),
            or_dash(found.available.map(|number| number.to_string())),
            or_dash(found.api.as_deref()),
            or_dash(found.name.as_deref()),
        ]
    });
    print(&table(
        &["PARENT", "TYPE", "AVAILABLE", "API", "NAME"],
        rows,
    ))
}

/// Prints the devices that can have peers, by group.
pub fn peers(snapshot: &Snapshot, json: bool) -> Result<()> {
    let mut groups: BTreeMap<u32, Vec<&Device>> = BTreeMap::new();
    for device in devices(snapshot) {
        let peer = device
            .mdev
            .as_ref()
            .is_some_and(|mdev| mdev.peer_uuid.is_some());
        if let Some(group) = device.group.filter(|_| peer) {
            groups.entry(group).or_default().push(device);
        }
    }
    if json {
        return print_json(&groups);
    }
    if groups.is_empty() {
        let why = if snapshot.modules.vfio_in_rust {
            "create devices of a type that can: 'vfioctl mdev types'"
        } else {
            "the kernel's own vfio.ko has no groups of peers"
        };
        return print(&format!("No device can have peers: {why}.\n"));
    }
    let rows = groups.iter().flat_map(|(group, devices)| {
        devices.iter().map(move |device| {
            let mdev = device.mdev.clone().unwrap_or_default();
            vec![
                group.to_string(),
                device.name.clone(),
                mdev.parent,
                mdev.kind,
            ]
        })
    });
    print(&table(&["GROUP", "UUID", "PARENT", "TYPE"], rows))
}
