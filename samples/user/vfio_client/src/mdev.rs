// SPDX-License-Identifier: GPL-2.0

//! Mediated devices: creation, grouping and opening.

use crate::{
    Container,
    Device,
    Error,
    Group,
    Iommu,
    Result, //
};
use std::{
    fs,
    io::{
        self,
        Write, //
    },
    path::{
        Path,
        PathBuf, //
    },
};

/// The directory of all parents.
const PARENTS: &str = "/sys/class/mdev_bus";
/// The directory of all devices.
const DEVICES: &str = "/sys/bus/mdev/devices";

/// Returns the sysfs directory of a device.
pub fn sysfs(uuid: &str) -> PathBuf {
    Path::new(DEVICES).join(uuid)
}

/// Returns the directory of a type, such as `mtty-1`. The parent has the name of its driver.
pub fn type_folder(name: &str) -> PathBuf {
    let driver = name.split('-').next().unwrap_or(name);
    type_folder_of(driver, name)
}

/// Returns the directory of a type of the given parent.
pub fn type_folder_of(parent: &str, name: &str) -> PathBuf {
    Path::new(PARENTS)
        .join(parent)
        .join("mdev_supported_types")
        .join(name)
}

/// Writes to the `create` attribute of a type.
pub fn create(name: &str, text: &str) -> io::Result<()> {
    store(type_folder(name).join("create"), text)
}

/// Writes to an attribute. Unlike `fs::write`, it does not create a missing file.
pub fn store(path: impl AsRef<Path>, text: &str) -> io::Result<()> {
    fs::File::options()
        .write(true)
        .open(path)?
        .write_all(text.as_bytes())
}

/// Returns a new random UUID.
pub fn new_uuid() -> Result<String> {
    let path = Path::new("/proc/sys/kernel/random/uuid");
    let text = fs::read_to_string(path).map_err(during(path))?;
    Ok(text.trim_end().to_owned())
}

fn during(path: &Path) -> impl Fn(io::Error) -> Error + '_ {
    move |error| Error::from_io(path.display().to_string(), &error)
}

/// A mediated device. Dropping it removes the device.
#[derive(Debug)]
pub struct Mdev {
    uuid: String,
}

impl Mdev {
    /// Creates a device of a type (see [`type_folder`]) with the given UUID.
    pub fn new(type_name: impl AsRef<str>, uuid: &str) -> Result<Self> {
        Self::in_folder(&type_folder(type_name.as_ref()), uuid)
    }

    /// Creates a device of a type with a new UUID.
    pub fn with_new_uuid(type_name: impl AsRef<str>) -> Result<Self> {
        Self::new(type_name, &new_uuid()?)
    }

    /// Creates a device of the type in the given directory.
    pub fn in_folder(folder: &Path, uuid: &str) -> Result<Self> {
        let create = folder.join("create");
        store(&create, uuid).map_err(during(&create))?;
        Ok(Self {
            uuid: uuid.to_owned(),
        })
    }

    /// Returns an object for an existing device.
    pub fn existing(uuid: &str) -> io::Result<Self> {
        fs::metadata(sysfs(uuid))?;
        Ok(Self {
            uuid: uuid.to_owned(),
        })
    }

    /// Consumes this object without removing the device.
    pub fn keep(self) {
        std::mem::forget(self);
    }

    /// Returns the UUID.
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// Returns the UUID as bytes, in the order of its text.
    pub fn uuid_bytes(&self) -> [u8; 16] {
        let digits: String = self.uuid.chars().filter(|&c| c != '-').collect();
        let number = u128::from_str_radix(&digits, 16).unwrap_or_default();
        number.to_be_bytes()
    }

    /// Returns the sysfs directory of the device.
    pub fn folder(&self) -> PathBuf {
        sysfs(&self.uuid)
    }

    /// Returns the path of the attribute with the peer-to-peer UUID. Only devices that can be peers
    /// have it.
    pub fn peer_file(&self) -> PathBuf {
        self.folder().join("peer_to_peer_resource_uuid")
    }

    /// Returns the peer-to-peer UUID.
    pub fn peer_uuid(&self) -> io::Result<String> {
        fs::read_to_string(self.peer_file()).map(|text| text.trim_end().to_owned())
    }

    /// Sets the peer-to-peer UUID, which makes the device a peer of the devices that have the same
    /// UUID.
    pub fn set_peer_uuid(&self, uuid: &str) -> io::Result<()> {
        store(self.peer_file(), uuid)
    }

    /// Returns the group number.
    pub fn group_number(&self) -> Result<u32> {
        Group::number_of(&self.folder())
    }

    /// Opens the group.
    pub fn group(&self) -> Result<Group> {
        Group::open(self.group_number()?)
    }

    /// Opens the group and adds it to a new type 1 v2 container.
    pub fn attach(&self) -> Result<(Container, Group)> {
        let group = self.group()?;
        Ok((group.attach(Iommu::Type1v2)?, group))
    }

    /// Opens the device in a new container.
    pub fn open(&self) -> Result<Open> {
        let (container, group) = self.attach()?;
        let device = group.device(&self.uuid)?;
        Ok(Open {
            device,
            group,
            container,
        })
    }

    /// Removes the device. Waits until its users have closed it.
    pub fn remove(&self) -> io::Result<()> {
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
    /// The group of the device.
    pub group: Group,
    /// The container, with a type 1 v2 backend.
    pub container: Container,
}
