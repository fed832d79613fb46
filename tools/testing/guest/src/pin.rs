// SPDX-License-Identifier: GPL-2.0

//! The test drivers that pin pages of their user, one in C and one in Rust: which of them the machine has
//! makes no difference to a case, unless the case says so.

#[path = "../../modules/mdev_pin_test/interface.rs"]
#[allow(dead_code, reason = "other programs ask for the rest")]
mod interface;

use crate::{
    env::{
        EDU,
        group, //
    },
    mdev::{
        self,
        Mdev, //
    }, //
};
use anyhow::{
    Context,
    Result, //
};
use interface::{
    DMA_READ,
    DMA_WRITE,
    HEADER,
    MISBEHAVE,
    PIN,
    PIN_ONLY,
    PINNED,
    POKE,
    TRY_KEPT,
    UNMAPS,
    UNPIN,
    UNPIN_STRAY,
    WORD, //
};
use std::{
    fs,
    os::fd::{
        AsFd,
        BorrowedFd, //
    },
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
    MapFlags,
    Memory,
    PAGE_SIZE,
    raw, //
};

pub(crate) use interface::{
    FAIL_RESETS,
    KEEP,
    KEEP_CLOSED,
    PIN_AGAIN,
    PIN_EARLIER,
    READ,
    WRITE, //
};

/// The device of the driver in C.
const IN_C: &str = "vfio_pin_test.0";
/// The type of the device of the driver in Rust.
const TYPE_IN_RUST: &str = "mdev_pin_test-pages";

/// Whether the driver is the one in Rust.
pub fn in_rust() -> bool {
    mdev::type_folder(TYPE_IN_RUST).exists()
}

/// The folder of a device of the driver in Rust.
fn folder_in_rust(uuid: &str) -> PathBuf {
    Path::new("/sys/bus/mdev/devices").join(uuid)
}

/// The name of the device of the driver in Rust, if there is one.
fn name_in_rust() -> Option<&'static str> {
    let exists = |uuid: &&str| folder_in_rust(uuid).exists();
    mdev::UUIDS.into_iter().find(exists)
}

/// Makes the device, if that has to be done.
pub fn prepare() -> Result<()> {
    if in_rust() && name_in_rust().is_none() {
        mdev::create(TYPE_IN_RUST, mdev::UUIDS[0]).context("the device can't be made")?;
    }
    Ok(())
}

/// Removes the device of the driver in Rust, and makes one of another name.
pub fn replace() -> Result<()> {
    let old = name();
    mdev::store(folder().join("remove"), "1")?;
    let new = mdev::UUIDS.into_iter().find(|&uuid| uuid != old);
    mdev::create(TYPE_IN_RUST, new.context("no name is left")?)?;
    Ok(())
}

/// Makes another device of the driver in Rust, which is removed when the result is dropped.
pub fn another() -> Result<Mdev> {
    Ok(Mdev::new(TYPE_IN_RUST, mdev::UUIDS[2])?)
}

/// The device's name.
fn name() -> &'static str {
    name_in_rust().unwrap_or(IN_C)
}

/// The device in sysfs.
fn folder() -> PathBuf {
    match name_in_rust() {
        Some(uuid) => folder_in_rust(uuid),
        None => Path::new("/sys/bus/platform/devices").join(IN_C),
    }
}

/// Returns the number of the group.
pub fn group_number() -> Result<u32> {
    let link = fs::read_link(folder().join("iommu_group"))?;
    let name = link.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.parse().ok())
        .context("the group has no number")
}

/// Opens the group.
pub fn pin_group() -> Result<Group> {
    Ok(Group::open(group_number()?)?)
}

/// The device.
#[derive(Debug)]
pub struct Pinner(Device);

impl Pinner {
    /// The device's file.
    pub fn device(&self) -> &Device {
        &self.0
    }

    fn send(&self, nr: u32, iova: u64, count: u32, prot: u32) -> Result<i32, Errno> {
        let mut bytes = Bytes::new().u64(iova).u32(count).u32(prot).u64(0);
        raw::bytes(&self.0, nr, &mut bytes)
    }

    /// Pins pages; returns how many, and the first word of the first of them.
    pub fn pin(&self, iova: u64, count: u32, prot: u32) -> Result<(i32, u64), Errno> {
        let mut bytes = Bytes::new().u64(iova).u32(count).u32(prot).u64(0);
        let pinned = raw::bytes(&self.0, PIN, &mut bytes)?;
        Ok((pinned, bytes.get_u64(WORD)))
    }

    /// Unpins those pages of a range which are pinned.
    pub fn unpin(&self, iova: u64, count: u32) -> Result<i32, Errno> {
        self.send(UNPIN, iova, count, 0)
    }

    /// Unpins pages whether they are pinned or not.
    pub fn unpin_stray(&self, iova: u64, count: u32) -> Result<i32, Errno> {
        self.send(UNPIN_STRAY, iova, count, 0)
    }

    /// Pins pages, which the driver forgets.
    pub fn pin_only(&self, iova: u64, count: u32, prot: u32) -> Result<i32, Errno> {
        self.send(PIN_ONLY, iova, count, prot)
    }

    /// Writes the first word of a pinned page, as a device does.
    pub fn poke(&self, iova: u64, word: u64) -> Result<i32, Errno> {
        let mut bytes = Bytes::new().u64(iova).u32(1).u32(0).u64(word);
        raw::bytes(&self.0, POKE, &mut bytes)
    }

    /// Has the driver read memory.
    pub fn read(&self, iova: u64, len: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = Bytes::new().u64(iova).u32(len as u32).u32(0).u64(0);
        bytes = bytes.fill(0, len);
        raw::bytes(&self.0, DMA_READ, &mut bytes)?;
        Ok(bytes.as_ref()[HEADER..].to_vec())
    }

    /// Has the driver write memory.
    pub fn write(&self, iova: u64, data: &[u8]) -> Result<i32, Errno> {
        let mut bytes = Bytes::new().u64(iova).u32(data.len() as u32).u32(0).u64(0);
        bytes = bytes.raw(data);
        raw::bytes(&self.0, DMA_WRITE, &mut bytes)
    }

    /// Makes the driver do wrong until the device is closed: 0, [`KEEP`] and others.
    pub fn misbehave(&self, how: u32) -> Result<i32, Errno> {
        raw::value(&self.0, MISBEHAVE, how.into())
    }

    /// Has the driver try what it has kept of a device that was closed.
    pub fn try_kept(&self) -> Result<i32, Errno> {
        raw::none(&self.0, TRY_KEPT)
    }

    /// Returns how many pages the driver has.
    pub fn pinned(&self) -> Result<i32, Errno> {
        raw::none(&self.0, PINNED)
    }

    /// Returns how often the driver was told to give up pages.
    pub fn unmaps(&self) -> Result<i32, Errno> {
        raw::none(&self.0, UNMAPS)
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

/// Where [`mapped`] maps.
pub const IOVA: u64 = 0x10_0000;

/// The device, in a container.
#[derive(Debug)]
pub struct Pinning {
    /// The device.
    pub pinner: Pinner,
    /// Its group, which must stay open as the device may be closed.
    pub group: Group,
    /// The container.
    pub container: Container,
}

impl Pinning {
    /// Opens it in a container without any physical device.
    pub fn alone(iommu: Iommu) -> Result<Self> {
        let container = Container::open()?;
        let group = pin_group()?;
        group.set_container(&container)?;
        container.set_iommu(iommu)?;
        let pinner = Pinner(group.device(name())?);
        Ok(Self {
            pinner,
            group,
            container,
        })
    }

    /// Opens it, with exact unmap rules.
    pub fn new() -> Result<Self> {
        Self::alone(Iommu::Type1v2)
    }

    /// Brings the `edu` of the cases into the container.
    pub fn join_edu(&self) -> Result<(Group, Device)> {
        self.join(EDU)
    }

    /// Brings a physical device into the container.
    pub fn join(&self, bdf: &str) -> Result<(Group, Device)> {
        let other = group(bdf)?;
        other.set_container(&self.container)?;
        let device = other.device(bdf)?;
        Ok((other, device))
    }
}

/// Opens the device once more.
pub fn open_again(group: &Group) -> vfio_client::Result<Device> {
    group.device(name())
}

/// Opens the device, and maps so many pages for reading and writing.
pub fn mapped(pages: usize) -> Result<(Pinning, Memory)> {
    mapped_for(MapFlags::ReadWrite, pages)
}

/// Opens the device, and maps so many pages at [`IOVA`].
pub fn mapped_for(flags: MapFlags, pages: usize) -> Result<(Pinning, Memory)> {
    let pinning = Pinning::new()?;
    let memory = Memory::anonymous(pages * PAGE_SIZE)?;
    pinning.container.map(IOVA, &memory, flags)?;
    Ok((pinning, memory))
}
