// SPDX-License-Identifier: GPL-2.0

//! Mediated devices of the kernel's samples, made and removed by sysfs.

use anyhow::{
    Context,
    Result, //
};
use std::{
    fs,
    io::Write,
    path::{
        Path,
        PathBuf, //
    },
};
use vfio_client::{
    Bytes,
    Container,
    Device,
    Errno,
    Group,
    Iommu,
    raw,
    request, //
};

/// The names of devices; no two cases run at once.
pub const UUIDS: [&str; 3] = [
    "7c0b5a46-0e30-4fa5-90d4-2d8c6f5e1a01",
    "7c0b5a46-0e30-4fa5-90d4-2d8c6f5e1a02",
    "7c0b5a46-0e30-4fa5-90d4-2d8c6f5e1a03",
];

/// Returns the folder of a type such as `mtty-1`.
pub fn type_folder(name: &str) -> PathBuf {
    let driver = name.split('-').next().unwrap_or(name);
    Path::new("/sys/class/mdev_bus")
        .join(driver)
        .join("mdev_supported_types")
        .join(name)
}

/// Reads an attribute of a type.
pub fn type_attribute(name: &str, attribute: &str) -> Result<String> {
    let path = type_folder(name).join(attribute);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// Writes to an attribute; unlike `fs::write` it does not try to make a file where there is none.
pub fn store(path: impl AsRef<Path>, text: &str) -> std::io::Result<()> {
    fs::File::options()
        .write(true)
        .open(path)?
        .write_all(text.as_bytes())
}

/// Writes to the `create` attribute of a type.
pub fn create(name: &str, text: &str) -> std::io::Result<()> {
    store(type_folder(name).join("create"), text)
}

/// A mediated device; it is removed when it is dropped.
#[derive(Debug)]
pub struct Mdev {
    uuid: String,
}

impl Mdev {
    /// Makes a device of a type.
    pub fn new(type_name: &str, uuid: &str) -> Result<Self> {
        create(type_name, uuid).with_context(|| format!("{uuid} of type {type_name}"))?;
        Ok(Self {
            uuid: uuid.to_owned(),
        })
    }

    /// Returns its folder.
    pub fn folder(&self) -> PathBuf {
        Path::new("/sys/bus/mdev/devices").join(&self.uuid)
    }

    /// Returns the number of its group.
    pub fn group_number(&self) -> Result<u32> {
        let link = fs::read_link(self.folder().join("iommu_group"))?;
        let name = link.file_name().and_then(|name| name.to_str());
        name.and_then(|name| name.parse().ok())
            .with_context(|| link.display().to_string())
    }

    /// Opens its group.
    pub fn group(&self) -> Result<Group> {
        Ok(Group::open(self.group_number()?)?)
    }

    /// Opens it in a container of its own.
    pub fn open(&self) -> Result<Open> {
        let container = Container::open()?;
        let group = self.group()?;
        group.set_container(&container)?;
        container.set_iommu(Iommu::Type1v2)?;
        let device = group.device(&self.uuid)?;
        Ok(Open {
            device,
            group,
            container,
        })
    }

    /// Removes it; waits for its users.
    pub fn remove(&self) -> std::io::Result<()> {
        store(self.folder().join("remove"), "1")
    }
}

impl Drop for Mdev {
    fn drop(&mut self) {
        let _ = self.remove();
    }
}

/// An open mediated device.
#[derive(Debug)]
pub struct Open {
    /// The device.
    pub device: Device,
    /// Its group.
    pub group: Group,
    /// The container, of the second version.
    pub container: Container,
}

/// Flag of a feature: read it.
pub const GET: u32 = 1 << 16;
/// Flag of a feature: write it.
pub const SET: u32 = 1 << 17;
/// Flag of a feature: ask whether it is there.
pub const PROBE: u32 = 1 << 18;

/// Feature: what the device can do for migration.
pub const MIGRATION: u32 = 1;
/// Feature: the state of migration.
pub const MIG_DEVICE_STATE: u32 = 2;
/// Feature: start to note what is written by DMA.
pub const DMA_LOGGING_START: u32 = 6;
/// Feature: note it no more.
pub const DMA_LOGGING_STOP: u32 = 7;
/// Feature: what was written.
pub const DMA_LOGGING_REPORT: u32 = 8;
/// Feature: how much data there will be.
pub const MIG_DATA_SIZE: u32 = 9;
/// Feature: the second version of the precopy information.
pub const MIG_PRECOPY_INFO_V2: u32 = 12;

/// Sends a feature request; `data` becomes what the kernel made of it.
pub fn feature(device: &Device, flags: u32, data: &mut Bytes) -> Result<i32, Errno> {
    let argsz = 8 + data.len() as u32;
    feature_of_size(device, argsz, flags, data)
}

/// Sends a feature request which says that it is `argsz` long.
pub fn feature_of_size(
    device: &Device,
    argsz: u32,
    flags: u32,
    data: &mut Bytes,
) -> Result<i32, Errno> {
    let mut bytes = Bytes::new().u32(argsz).u32(flags).raw(data.as_ref());
    let answer = raw::bytes(device, request::DEVICE_FEATURE, &mut bytes);
    assert_eq!(bytes.get_u32(0), argsz, "the header is only read");
    assert_eq!(bytes.get_u32(4), flags, "the header is only read");
    *data = Bytes::new().raw(&bytes.as_ref()[8..]);
    answer
}
