// SPDX-License-Identifier: GPL-2.0

//! The test drivers that pin pages of user memory, one in C and one in Rust. Cases do not depend
//! on which of them the machine has, unless they say so.

use crate::{
    env::{
        EDU,
        group, //
    },
    mdev::{
        self,
        Mdev, //
    },
};
use anyhow::{
    Context,
    Result, //
};
use std::{
    os::fd::{
        AsFd,
        BorrowedFd, //
    },
    path::{
        Path,
        PathBuf, //
    },
};
use support::pin::{
    Ask,
    IN_C,
    Pages, //
};
use vfio_client::{
    Bytes,
    Container,
    Device,
    Errno,
    Group,
    Iommu,
    MapFlags,
    Memory,
    PAGE_SIZE,
    raw, //
};

pub use support::pin::{
    READ, WRITE,
    misbehave::{
        FAIL_RESETS,
        KEEP,
        KEEP_CLOSED,
        PIN_AGAIN,
        PIN_EARLIER, //
    },
};

/// The type of the device of the driver in Rust.
const TYPE_IN_RUST: &str = "mdev_pin_test-pages";
/// The UUIDs of the driver's devices. Mediated devices of other drivers have others.
const UUIDS_IN_RUST: [&str; 3] = [
    "7c0b5a46-0e30-4fa5-90d4-2d8c6f5e1b01",
    "7c0b5a46-0e30-4fa5-90d4-2d8c6f5e1b02",
    "7c0b5a46-0e30-4fa5-90d4-2d8c6f5e1b03",
];

/// Returns whether the Rust driver is used.
pub fn in_rust() -> bool {
    mdev::type_folder(TYPE_IN_RUST).exists()
}

/// Returns the sysfs directory of a device of the Rust driver.
fn folder_in_rust(uuid: &str) -> PathBuf {
    Path::new("/sys/bus/mdev/devices").join(uuid)
}

/// Returns the name of the device of the Rust driver, if it exists.
fn name_in_rust() -> Option<&'static str> {
    let exists = |uuid: &&str| folder_in_rust(uuid).exists();
    UUIDS_IN_RUST.into_iter().find(exists)
}

/// Creates the device if the Rust driver is used and it does not exist.
pub fn prepare() -> Result<()> {
    if in_rust() && name_in_rust().is_none() {
        mdev::create(TYPE_IN_RUST, UUIDS_IN_RUST[0])
            .context("cannot create the device that pins pages")?;
    }
    Ok(())
}

/// Removes the device of the Rust driver and creates one with another name.
pub fn replace() -> Result<()> {
    let old = name();
    mdev::store(folder().join("remove"), "1")?;
    let new = UUIDS_IN_RUST.into_iter().find(|&uuid| uuid != old);
    mdev::create(TYPE_IN_RUST, new.context("all UUIDs are in use")?)?;
    Ok(())
}

/// Creates another device of the Rust driver. It is removed when the result is dropped.
pub fn another() -> Result<Mdev> {
    Ok(Mdev::new(TYPE_IN_RUST, UUIDS_IN_RUST[2])?)
}

/// Returns the name of the device.
fn name() -> &'static str {
    name_in_rust().unwrap_or(IN_C)
}

/// Returns the sysfs directory of the device.
fn folder() -> PathBuf {
    match name_in_rust() {
        Some(uuid) => folder_in_rust(uuid),
        None => Path::new("/sys/bus/platform/devices").join(IN_C),
    }
}

/// Returns the number of the group.
pub fn group_number() -> Result<u32> {
    Ok(Group::number_of(&folder())?)
}

/// Opens the group.
pub fn pin_group() -> Result<Group> {
    Ok(Group::open(group_number()?)?)
}

/// The open device.
#[derive(Debug)]
pub struct Pinner(Device);

impl Pinner {
    /// Returns the device file.
    pub fn device(&self) -> &Device {
        &self.0
    }

    /// Sends a request with data after its structure. Returns the structure and the data as the
    /// driver left them, too.
    fn send_with(&self, ask: Ask, pages: Pages, data: &[u8]) -> Result<(i32, Bytes), Errno> {
        let mut bytes = pages.bytes().raw(data);
        let answer = raw::bytes(&self.0, ask.number(), &mut bytes)?;
        Ok((answer, bytes))
    }

    fn send(&self, ask: Ask, iova: u64, count: u32, prot: u32) -> Result<(i32, Bytes), Errno> {
        let pages = Pages {
            iova,
            count,
            prot,
            word: 0,
        };
        self.send_with(ask, pages, &[])
    }

    /// Pins pages. Returns their number and the first word of the first page.
    pub fn pin(&self, iova: u64, count: u32, prot: u32) -> Result<(i32, u64), Errno> {
        let (pinned, answer) = self.send(Ask::Pin, iova, count, prot)?;
        Ok((pinned, answer.get::<Pages>(0).word))
    }

    /// Unpins the pinned pages of a range.
    pub fn unpin(&self, iova: u64, count: u32) -> Result<i32, Errno> {
        Ok(self.send(Ask::Unpin, iova, count, 0)?.0)
    }

    /// Unpins pages, whether they are pinned or not.
    pub fn unpin_stray(&self, iova: u64, count: u32) -> Result<i32, Errno> {
        Ok(self.send(Ask::UnpinStray, iova, count, 0)?.0)
    }

    /// Pins pages that the driver then forgets.
    pub fn pin_only(&self, iova: u64, count: u32, prot: u32) -> Result<i32, Errno> {
        Ok(self.send(Ask::PinOnly, iova, count, prot)?.0)
    }

    /// Writes the first word of a pinned page, like a device.
    pub fn poke(&self, iova: u64, word: u64) -> Result<i32, Errno> {
        let pages = Pages {
            iova,
            count: 1,
            prot: 0,
            word,
        };
        Ok(self.send_with(Ask::Poke, pages, &[])?.0)
    }

    /// Makes the driver read memory.
    pub fn read(&self, iova: u64, len: usize) -> Result<Vec<u8>, Errno> {
        let pages = Pages {
            iova,
            count: len as u32,
            ..Pages::default()
        };
        let (_, answer) = self.send_with(Ask::Read, pages, &vec![0; len])?;
        Ok(Pages::data(&answer).to_vec())
    }

    /// Makes the driver write memory.
    pub fn write(&self, iova: u64, data: &[u8]) -> Result<i32, Errno> {
        let pages = Pages {
            iova,
            count: data.len() as u32,
            ..Pages::default()
        };
        Ok(self.send_with(Ask::Write, pages, data)?.0)
    }

    /// Makes the driver misbehave until the device is closed: 0, [`KEEP`] and others.
    pub fn misbehave(&self, how: u32) -> Result<i32, Errno> {
        raw::value(&self.0, Ask::Misbehave.number(), how.into())
    }

    /// Makes the driver try to use what it has kept of a closed device.
    pub fn try_kept(&self) -> Result<i32, Errno> {
        raw::none(&self.0, Ask::TryKept.number())
    }

    /// Returns the number of pages that the driver has pinned.
    pub fn pinned(&self) -> Result<i32, Errno> {
        raw::none(&self.0, Ask::Pinned.number())
    }

    /// Returns how often the driver was notified to unpin pages.
    pub fn unmaps(&self) -> Result<i32, Errno> {
        raw::none(&self.0, Ask::Unmaps.number())
    }
}

impl From<Device> for Pinner {
    fn from(device: Device) -> Self {
        Self(device)
    }
}

impl AsFd for Pinner {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The IOVA at which [`mapped`] maps memory.
pub const IOVA: u64 = 0x10_0000;

/// The open device in a container.
#[derive(Debug)]
pub struct Pinning {
    /// The device.
    pub pinner: Pinner,
    /// The group of the device. It must stay open, since the device may be closed.
    pub group: Group,
    /// The container.
    pub container: Container,
}

impl Pinning {
    /// Opens the device in a container without physical devices.
    pub fn alone(iommu: Iommu) -> Result<Self> {
        let group = pin_group()?;
        let container = group.attach(iommu)?;
        let pinner = Pinner(group.device(name())?);
        Ok(Self {
            pinner,
            group,
            container,
        })
    }

    /// Opens the device in a container with the exact unmap rules of type1v2.
    pub fn new() -> Result<Self> {
        Self::alone(Iommu::Type1v2)
    }

    /// Adds the `edu` of the cases to the container.
    pub fn join_edu(&self) -> Result<(Group, Device)> {
        self.join(EDU)
    }

    /// Adds a physical device to the container.
    pub fn join(&self, bdf: &str) -> Result<(Group, Device)> {
        let other = group(bdf)?;
        other.set_container(&self.container)?;
        let device = other.device(bdf)?;
        Ok((other, device))
    }
}

/// Opens the device again.
pub fn open_again(group: &Group) -> vfio_client::Result<Device> {
    group.device(name())
}

/// Opens the file of the device, without its group.
pub fn open_file() -> vfio_client::Result<Device> {
    Device::open_file(&folder())
}

/// Opens the device and maps `pages` pages for reading and writing.
pub fn mapped(pages: usize) -> Result<(Pinning, Memory)> {
    mapped_for(MapFlags::ReadWrite, pages)
}

/// Opens the device and maps `pages` pages at [`IOVA`].
pub fn mapped_for(flags: MapFlags, pages: usize) -> Result<(Pinning, Memory)> {
    let pinning = Pinning::new()?;
    let memory = Memory::anonymous(pages * PAGE_SIZE)?;
    pinning.container.map(IOVA, &memory, flags)?;
    Ok((pinning, memory))
}
