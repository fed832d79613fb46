// SPDX-License-Identifier: GPL-2.0

//! The names that a user gives devices.

use std::path::Path;

use anyhow::Result;

use crate::{
    status::Failure,
    system::{
        Snapshot,
        devices::{
            Device,
            Group, //
        },
    },
};

/// Finds a device by its name: a PCI address with or without domain, the UUID of a mediated device,
/// the name of its device file, or a path that ends with one of these. The number or the node of a
/// group stands for its first device that is not a bridge.
pub fn device<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a Device> {
    let short = short_name(name);
    if let Some(device) = by_own_name(snapshot, &short) {
        return Ok(device);
    }
    if let Some(group) = group_number(&short) {
        let group = snapshot.groups.get(&group);
        let group = group.ok_or_else(|| Failure::not_found(format!("there is no group {name}")))?;
        return first_device(snapshot, group);
    }
    Err(Failure::not_found(format!(
        "there is no device {name}; 'vfioctl list' shows all devices"
    )))
}

fn first_device<'a>(snapshot: &'a Snapshot, group: &'a Group) -> Result<&'a Device> {
    let mut members = snapshot.members(group);
    let found = members.find(|device| !device.is_bridge());
    let found = found.or_else(|| snapshot.members(group).next());
    found.ok_or_else(|| Failure::not_found(format!("group {} has no devices", group.id)))
}

fn by_own_name<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a Device> {
    let devices = &snapshot.devices;
    devices
        .get(name)
        .or_else(|| devices.get(&name.to_ascii_lowercase()))
        .or_else(|| devices.get(&format!("0000:{}", name.to_ascii_lowercase())))
        .or_else(|| devices.values().find(|d| d.vfio.as_deref() == Some(name)))
}

/// Returns the last component of a path, or the name itself.
fn short_name(name: &str) -> String {
    let last = Path::new(name).file_name().unwrap_or_default();
    last.to_string_lossy().into_owned()
}

fn group_number(name: &str) -> Option<u32> {
    name.strip_prefix("noiommu-").unwrap_or(name).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{
        Status,
        status_of, //
    };

    fn snapshot() -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (name, vfio) in [
            ("0000:06:00.0", Some("vfio3")),
            ("83b8f4f2-509f-382f-3c1e-e6bfe0fa1001", None),
        ] {
            let device = Device {
                name: name.into(),
                group: Some(7),
                vfio: vfio.map(Into::into),
                ..Device::default()
            };
            snapshot.devices.insert(name.into(), device);
        }
        let devices = snapshot.devices.keys().cloned().collect();
        let group = Group {
            id: 7,
            devices,
            ..Group::default()
        };
        snapshot.groups.insert(7, group);
        snapshot
    }

    #[test]
    fn all_names_of_a_device() {
        let snapshot = snapshot();
        for name in [
            "0000:06:00.0",
            "06:00.0",
            "/sys/bus/pci/devices/0000:06:00.0",
            "vfio3",
            "/dev/vfio/devices/vfio3",
            "7",
            "/dev/vfio/7",
            "noiommu-7",
        ] {
            assert_eq!(
                device(&snapshot, name).unwrap().name,
                "0000:06:00.0",
                "{name}"
            );
        }
        let uuid = "83B8F4F2-509F-382F-3C1E-E6BFE0FA1001";
        assert!(device(&snapshot, uuid).is_ok());
    }

    #[test]
    fn unknown_names() {
        for name in ["", "/", "8", "06:00.1", "-1", "99999999999", "\u{e9}"] {
            let error = device(&snapshot(), name).unwrap_err();
            assert_eq!(status_of(&error), Status::NotFound, "{name}");
        }
    }
}
