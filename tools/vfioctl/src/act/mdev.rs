// SPDX-License-Identifier: GPL-2.0

//! Mediated devices and their peers.

use anyhow::Result;
use serde::Serialize;
use uuid::Uuid;

use super::store;
use crate::{
    name,
    status::Failure,
    system::{
        Snapshot, System,
        devices::{
            Device,
            Mdev, //
        },
    },
};

/// A type of mediated device that can be created.
#[derive(Clone, Debug, Serialize)]
pub struct Type {
    /// The parent.
    pub parent: String,
    /// The type.
    #[serde(rename = "type")]
    pub kind: String,
    /// A name for people.
    pub name: Option<String>,
    /// The number of devices that can still be created.
    pub available: Option<u64>,
    /// The interface of its devices, for example `vfio-pci`.
    pub api: Option<String>,
    /// A text about it.
    pub description: Option<String>,
}

/// Lists the types.
pub fn types(system: &System) -> Vec<Type> {
    let mut found = Vec::new();
    for parent in system.names("/sys/class/mdev_bus") {
        let folder = format!("/sys/class/mdev_bus/{parent}/mdev_supported_types");
        for kind in system.names(&folder) {
            let text = |name: &str| system.read(format!("{folder}/{kind}/{name}"));
            found.push(Type {
                parent: parent.clone(),
                name: text("name"),
                available: text("available_instances").and_then(|text| text.parse().ok()),
                api: text("device_api"),
                description: text("description"),
                kind,
            });
        }
    }
    found
}

/// Creates a device; returns its UUID.
pub fn create(
    system: &System,
    kind: &str,
    parent: Option<&str>,
    uuid: Option<Uuid>,
) -> Result<Uuid> {
    let all = types(system);
    let of_kind = all.iter().filter(|found| found.kind == kind);
    let wanted: Vec<&Type> = of_kind
        .filter(|found| parent.is_none_or(|parent| parent == found.parent))
        .collect();
    let chosen = match wanted[..] {
        [] => {
            return Err(Failure::not_found(format!(
                "no parent has the type {kind}; 'vfioctl mdev types' shows all types"
            )));
        }
        [only] => only,
        _ => wanted
            .iter()
            .copied()
            .find(|found| found.available != Some(0))
            .unwrap_or(wanted[0]),
    };
    if chosen.available == Some(0) {
        return Err(Failure::refused(format!(
            "{} has no room for another {kind}: remove a device first, 'vfioctl mdev list' shows them",
            chosen.parent
        )));
    }
    let uuid = uuid.unwrap_or_else(Uuid::new_v4);
    if Snapshot::read(system)
        .devices
        .contains_key(&uuid.to_string())
    {
        return Err(Failure::refused(format!(
            "there is a device {uuid} already"
        )));
    }
    let folder = format!(
        "/sys/class/mdev_bus/{}/mdev_supported_types/{kind}",
        chosen.parent
    );
    store(system, format!("{folder}/create"), &uuid.to_string())?;
    Ok(uuid)
}

/// Removes a device, unless a process has it open.
pub fn remove(system: &System, device: &str) -> Result<()> {
    let snapshot = Snapshot::read(system);
    let (device, _) = mdev(&snapshot, device)?;
    refuse_open(&snapshot, device)?;
    store(
        system,
        format!("/sys/bus/mdev/devices/{}/remove", device.name),
        "1",
    )
}

/// Finds a mediated device.
pub fn mdev<'a>(snapshot: &'a Snapshot, device: &str) -> Result<(&'a Device, &'a Mdev)> {
    let device = name::device(snapshot, device)?;
    let mdev = device.mdev.as_ref();
    let mdev =
        mdev.ok_or_else(|| Failure::refused(format!("{} is no mediated device", device.name)))?;
    Ok((device, mdev))
}

/// The kernel would wait until the process closes the device.
fn refuse_open(snapshot: &Snapshot, device: &Device) -> Result<()> {
    let group = snapshot.group_of(device);
    let holders = group
        .map(|group| snapshot.holders_of(group))
        .unwrap_or_default();
    match holders.first() {
        None => Ok(()),
        Some(holder) => Err(Failure::refused(format!(
            "{} ({}) has the group of {} open: close it in that process",
            holder.command, holder.pid, device.name
        ))),
    }
}

const ATTRIBUTE: &str = "peer_to_peer_resource_uuid";

/// Puts devices into the group of the first one. If the kernel refuses one of them, or gives it a
/// group of its own because it can't share, all devices get their groups back.
pub fn group(system: &System, devices: &[String]) -> Result<()> {
    let snapshot = Snapshot::read(system);
    let mut uuids: Vec<(String, String)> = Vec::new();
    for device in devices {
        let peer = peer(&snapshot, device)?;
        refuse_open(&snapshot, name::device(&snapshot, device)?)?;
        if !uuids.contains(&peer) {
            uuids.push(peer);
        }
    }
    let Some(((first, uuid), others)) = uuids.split_first() else {
        return Ok(());
    };
    for (number, (name, _)) in others.iter().enumerate() {
        let written = set_group(system, name, uuid);
        let changed = number + usize::from(written.is_ok());
        let Err(error) = written.and_then(|()| require_one_group(system, first, name)) else {
            continue;
        };
        let mut failed = String::new();
        for (name, before) in others[..changed].iter().rev() {
            if let Err(error) = set_group(system, name, before) {
                failed += &format!("; {error:#}");
            }
        }
        if failed.is_empty() {
            return Err(error.context("nothing was changed"));
        }
        return Err(error.context(format!("undoing it failed, too{failed}")));
    }
    Ok(())
}

/// Returns an error if two devices with one UUID have different groups.
fn require_one_group(system: &System, first: &str, second: &str) -> Result<()> {
    let snapshot = Snapshot::read(system);
    let group = |name| name::device(&snapshot, name).map(|device| device.group);
    if group(first)? == group(second)? {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "{second} can't share a group with {first}: they have different drivers or parents"
    )))
}

fn set_group(system: &System, device: &str, uuid: &str) -> Result<()> {
    let file = format!("/sys/bus/mdev/devices/{device}/{ATTRIBUTE}");
    store(system, file, uuid)
}

/// Gives a device a group of its own.
pub fn split(system: &System, device: &str) -> Result<()> {
    let snapshot = Snapshot::read(system);
    let (name, _) = peer(&snapshot, device)?;
    refuse_open(&snapshot, name::device(&snapshot, device)?)?;
    set_group(system, &name, &Uuid::new_v4().to_string())
}

/// Returns the name of a device and the UUID of its group.
fn peer(snapshot: &Snapshot, device: &str) -> Result<(String, String)> {
    let (device, mdev) = mdev(snapshot, device)?;
    let Some(uuid) = &mdev.peer_uuid else {
        let why = if snapshot.modules.vfio_in_rust {
            "its type has no peers"
        } else {
            "the kernel's own vfio.ko has no groups of peers; this project's has"
        };
        return Err(Failure::unsupported(format!(
            "{} can't have peers: {why}",
            device.name
        )));
    };
    Ok((device.name.clone(), uuid.clone()))
}
