// SPDX-License-Identifier: GPL-2.0

//! A thousand devices in groups of four.

use super::node_exists;
use crate::harness::cases;
use anyhow::Result;
use std::{
    collections::BTreeSet,
    fs,
    time::{
        Duration,
        Instant, //
    },
};
use vgpu_copy::{
    Kind,
    Mdev,
    Vgpu, //
};

cases! {
    thousand_devices_in_groups_of_four,
}

const DEVICES: usize = 1000;
const MEMBERS: usize = 4;

fn thousand_devices_in_groups_of_four() -> Result<()> {
    let nodes_before = nodes()?;
    let mut devices: Vec<Mdev> = Vec::new();
    for present in [10, 100, DEVICES] {
        let start = Instant::now();
        let made = present - devices.len();
        for _ in 0..made {
            devices.push(Mdev::with_new_uuid(Kind::Single)?);
        }
        println!("up to {present}: {} to make one", each(start, made));
    }
    assert_eq!(nodes()?.len(), nodes_before.len() + DEVICES);

    let start = Instant::now();
    for members in devices.chunks(MEMBERS) {
        let uuid = members[0].peer_uuid()?;
        for member in &members[1..] {
            member.set_peer_uuid(&uuid)?;
        }
    }
    println!("{} to group one", each(start, DEVICES));
    assert_eq!(nodes()?.len(), nodes_before.len() + DEVICES / MEMBERS);

    let start = Instant::now();
    for members in devices.chunks(MEMBERS) {
        let (_container, group) = members[0].attach()?;
        let open = members
            .iter()
            .map(|member| Vgpu::open(&group, member))
            .collect::<Result<Vec<_>>>()?;
        assert_eq!(open[0].peers()?, MEMBERS as u32);
    }
    println!("{} to open and close one", each(start, DEVICES));

    let groups = devices
        .iter()
        .map(Mdev::group_number)
        .collect::<vfio_client::Result<BTreeSet<_>>>()?;
    let start = Instant::now();
    drop(devices);
    println!("{} to remove one", each(start, DEVICES));
    assert!(groups.iter().all(|&group| !node_exists(group)));
    assert_eq!(nodes()?, nodes_before);
    Ok(())
}

/// Returns the nodes of all groups.
fn nodes() -> Result<BTreeSet<std::ffi::OsString>> {
    fs::read_dir("/dev/vfio")?
        .map(|entry| Ok(entry?.file_name()))
        .collect()
}

/// Formats the time that one of `count` items has taken.
fn each(start: Instant, count: usize) -> String {
    let time: Duration = start.elapsed() / count as u32;
    format!("{} us", time.as_micros())
}
