// SPDX-License-Identifier: GPL-2.0

//! Peer-to-peer groups of mediated devices, with the accelerators of `samples/vgpu_p2p`.

mod charges;
mod copies;
mod device_files;
mod faults;
mod groups;
mod logging;
mod many;
mod migration;
mod parent;
pub(crate) mod races;
mod sessions;

use anyhow::Result;
use libtest_mimic::Trial;
use std::path::Path;
use vfio_client::{
    Container,
    Group, //
};
use vgpu_copy::{
    Kind,
    Mdev,
    Vgpu, //
};

/// Returns all cases.
pub fn cases() -> Vec<Trial> {
    [
        groups::cases(),
        copies::cases(),
        logging::cases(),
        migration::cases(),
        parent::cases(),
        races::cases(),
        faults::cases(),
        charges::cases(),
        sessions::cases(),
        many::cases(),
        device_files::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Creates two devices that can become peers.
fn two() -> Result<[Mdev; 2]> {
    Ok([
        Mdev::with_new_uuid(Kind::Single)?,
        Mdev::with_new_uuid(Kind::Double)?,
    ])
}

/// Creates two devices that are peers.
fn peers() -> Result<[Mdev; 2]> {
    let [a, b] = two()?;
    b.set_peer_uuid(&a.peer_uuid()?)?;
    Ok([a, b])
}

/// Opens a device with its group and a new container.
fn open(mdev: &Mdev) -> Result<(Vgpu, Group, Container)> {
    let (container, group) = mdev.attach()?;
    Ok((Vgpu::open(&group, mdev)?, group, container))
}

/// Returns whether the node of a group exists.
fn node_exists(group: u32) -> bool {
    Path::new(&format!("/dev/vfio/{group}")).exists()
}
