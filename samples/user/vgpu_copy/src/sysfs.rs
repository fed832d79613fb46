// SPDX-License-Identifier: GPL-2.0

//! How devices are made and grouped.

use anyhow::{
    Context,
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
use vfio_client::Group;

/// Where all mediated devices are.
const DEVICES: &str = "/sys/bus/mdev/devices";

/// The types of device.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A peer with twice the memory.
    Double,
    /// A peer.
    Single,
    /// Never a peer.
    Isolated,
}

impl Kind {
    /// The type's folder.
    pub fn folder(self) -> PathBuf {
        let name = match self {
            Self::Double => "vgpu_p2p-p2p-2x",
            Self::Single => "vgpu_p2p-p2p-1x",
            Self::Isolated => "vgpu_p2p-isolated",
        };
        Path::new("/sys/class/mdev_bus/vgpu_p2p/mdev_supported_types").join(name)
    }
}

/// A device, removed when it is dropped.
#[derive(Debug)]
pub struct Mdev(String);

impl Mdev {
    /// Makes a device with a UUID.
    pub fn new(kind: Kind, uuid: &str) -> Result<Self> {
        let create = kind.folder().join("create");
        store(&create, uuid)
            .with_context(|| format!("{}: is vgpu_p2p.ko loaded?", create.display()))?;
        Ok(Self(uuid.to_owned()))
    }

    /// Makes a device with a new UUID.
    pub fn with_new_uuid(kind: Kind) -> Result<Self> {
        Self::new(kind, &new_uuid()?)
    }

    /// A device that is there already.
    pub fn existing(uuid: &str) -> io::Result<Self> {
        fs::metadata(Path::new(DEVICES).join(uuid))?;
        Ok(Self(uuid.to_owned()))
    }

    /// Lets it stay.
    pub fn keep(self) {
        std::mem::forget(self);
    }

    /// The UUID.
    pub fn uuid(&self) -> &str {
        &self.0
    }

    /// The UUID as bytes, in the order of its text.
    pub fn uuid_bytes(&self) -> [u8; 16] {
        let digits: String = self.0.chars().filter(|&c| c != '-').collect();
        let number = u128::from_str_radix(&digits, 16).unwrap_or_default();
        number.to_be_bytes()
    }

    /// Its folder.
    pub fn folder(&self) -> PathBuf {
        Path::new(DEVICES).join(&self.0)
    }

    /// The file that says whose peer it is; only devices that can be peers have it.
    pub fn peer_file(&self) -> PathBuf {
        self.folder().join("peer_to_peer_resource_uuid")
    }

    /// Whose peer it is.
    pub fn peer_uuid(&self) -> io::Result<String> {
        fs::read_to_string(self.peer_file()).map(|text| text.trim_end().to_owned())
    }

    /// Makes it a peer of those with the UUID.
    pub fn set_peer_uuid(&self, uuid: &str) -> io::Result<()> {
        store(&self.peer_file(), uuid)
    }

    /// The number of its group.
    pub fn group_number(&self) -> Result<u32> {
        let link = fs::read_link(self.folder().join("iommu_group"))?;
        let name = link.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.parse().ok());
        number.with_context(|| link.display().to_string())
    }

    /// Opens its group.
    pub fn group(&self) -> Result<Group> {
        Ok(Group::open(self.group_number()?)?)
    }

    /// Removes it; waits for its users.
    pub fn remove(&self) -> io::Result<()> {
        store(&self.folder().join("remove"), "1")
    }
}

impl Drop for Mdev {
    fn drop(&mut self) {
        let _ = self.remove();
    }
}

/// A new random UUID.
pub fn new_uuid() -> Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    Ok(text.trim_end().to_owned())
}

/// Writes to an attribute; unlike `fs::write` it does not try to make a file where there is none.
fn store(path: &Path, text: &str) -> io::Result<()> {
    fs::File::options()
        .write(true)
        .open(path)?
        .write_all(text.as_bytes())
}
