// SPDX-License-Identifier: GPL-2.0

//! Peer-to-peer groups of mediated devices, with the accelerators of `samples/vgpu_p2p`.

mod charges;
mod copies;
mod device_files;
mod faults;
mod groups;
mod logging;
mod machines;
mod many;
mod migration;
mod parent;
pub(crate) mod races;
mod sessions;
mod through;

use crate::modules::load;
use anyhow::{
    Result,
    bail, //
};
use libtest_mimic::Trial;
use std::{
    ffi::CStr,
    fs,
    path::Path, //
};
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
        machines::cases(),
        many::cases(),
        device_files::cases(),
        through::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Returns the cases for the driver in C, `samples/vgpu_c`. It has neither migration nor a log of
/// its writes.
pub fn cases_in_c() -> Vec<Trial> {
    [
        groups::cases(),
        copies::cases(),
        parent::cases(),
        races::cases(),
        faults::cases(),
        many::cases(),
        device_files::cases(),
        through::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The driver of the devices: `samples/vgpu_p2p`, or `samples/vgpu_c` under the same name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Driver {
    Rust,
    C,
}

impl Driver {
    /// Returns the driver that is loaded.
    fn loaded() -> Result<Self> {
        let module = fs::read_link("/sys/bus/mdev/drivers/vgpu_p2p/module")?;
        match module.file_name().and_then(|name| name.to_str()) {
            Some("vgpu_p2p") => Ok(Self::Rust),
            Some("vgpu_c") => Ok(Self::C),
            _ => bail!("vgpu_p2p is a driver of {}", module.display()),
        }
    }

    fn module(self) -> &'static CStr {
        match self {
            Self::Rust => c"vgpu_p2p",
            Self::C => c"vgpu_c",
        }
    }

    /// Loads the driver as the set does.
    fn load(self) -> Result<()> {
        match self {
            Self::Rust => load(&["vgpu_p2p", "cards=2"]),
            Self::C => load(&["vgpu_c", "name=vgpu_p2p", "cards=2"]),
        }
    }
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
