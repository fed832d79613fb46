// SPDX-License-Identifier: GPL-2.0

//! Peer-to-peer groups of mediated devices, with the accelerators of `samples/vgpu_p2p`.

mod copies;
mod groups;
mod many;
mod races;

use anyhow::Result;
use libtest_mimic::Trial;
use std::{
    io,
    path::Path, //
};
use vfio_client::{
    Container,
    Errno,
    Group,
    Iommu, //
};
use vgpu_copy::{
    Kind,
    Mdev,
    Vgpu, //
};

/// All cases.
pub fn cases() -> Vec<Trial> {
    [
        groups::cases(),
        copies::cases(),
        races::cases(),
        many::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Makes two devices that can be peers.
fn two() -> Result<[Mdev; 2]> {
    Ok([
        Mdev::with_new_uuid(Kind::Single)?,
        Mdev::with_new_uuid(Kind::Double)?,
    ])
}

/// Makes two devices that are peers.
fn peers() -> Result<[Mdev; 2]> {
    let [a, b] = two()?;
    b.set_peer_uuid(&a.peer_uuid()?)?;
    Ok([a, b])
}

/// Puts the group of a device into a container.
fn attach(mdev: &Mdev) -> Result<(Container, Group)> {
    let container = Container::open()?;
    let group = mdev.group()?;
    group.set_container(&container)?;
    container.set_iommu(Iommu::Type1v2)?;
    Ok((container, group))
}

/// An open device with its group and container.
fn open(mdev: &Mdev) -> Result<(Vgpu, Group, Container)> {
    let (container, group) = attach(mdev)?;
    Ok((Vgpu::open(&group, mdev)?, group, container))
}

/// Whether the node of a group is there.
fn node_exists(group: u32) -> bool {
    Path::new(&format!("/dev/vfio/{group}")).exists()
}

/// The error of a write to an attribute.
#[track_caller]
fn errno(outcome: io::Result<()>) -> Errno {
    let error = outcome.expect_err("the write succeeded");
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}
