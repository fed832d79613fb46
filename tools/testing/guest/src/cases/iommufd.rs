// SPDX-License-Identifier: GPL-2.0

//! Devices that are opened by their own files and bound to an iommufd, and groups whose container
//! is an iommufd.

mod additions;
mod attach;
mod bind;
mod exclusion;
mod file_close;
mod file_device;
mod file_emulated;
mod file_exports;
mod file_nodes;
mod file_races;
mod file_removal;
mod file_states;
mod hot_reset;
mod iommufd_group;
mod iommufd_pins;
mod pasid;
mod token;

use crate::{
    env::{
        EDU,
        SIBLING, //
    },
    requires, //
};
use anyhow::{
    Result,
    bail,
    ensure, //
};
use libtest_mimic::Trial;
use std::{
    fs,
    io,
    path::Path, //
};
use vfio_client::{
    Device,
    Errno,
    Group,
    Iommufd,
    MapFlags,
    Memory,
    PAGE_SIZE,
    edu::Edu,
    pci, //
};

/// Returns the cases for device files and iommufd.
pub fn cases() -> Vec<Trial> {
    [
        file_nodes::cases(),
        bind::cases(),
        token::cases(),
        attach::cases(),
        pasid::cases(),
        exclusion::cases(),
        file_device::cases(),
        hot_reset::cases(),
        file_close::cases(),
        file_removal::cases(),
        file_states::cases(),
        file_races::cases(),
        iommufd_group::cases(),
        file_emulated::cases(),
        file_exports::cases(),
        iommufd_pins::cases(),
        additions::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Runs the command of a helper process.
pub fn helper(words: &[&str]) -> Result<()> {
    match words {
        ["hold"] => file_close::helper::hold(),
        ["bind", device, iommufd] => file_close::helper::bind(device, iommufd),
        ["state", device, state] => file_states::hold(device, state),
        ["use", device] => file_close::helper::use_bound(device),
        other => bail!("there is no helper {other:?} for iommufd"),
    }
}

/// Opens the file of a PCI device.
fn open(bdf: &str) -> vfio_client::Result<Device> {
    Device::open_file(&pci::sysfs(bdf))
}

/// Opens the file of a PCI device and binds the device to a new iommufd.
fn bound(bdf: &str) -> Result<(Device, Iommufd)> {
    let iommufd = Iommufd::open()?;
    let device = open(bdf)?;
    device.bind(&iommufd)?;
    Ok((device, iommufd))
}

/// A device that is attached to an IOAS.
struct Attached {
    /// The device, which was opened by its own file.
    device: Device,
    /// The iommufd to which it is bound.
    iommufd: Iommufd,
    /// The IOAS.
    ioas: u32,
}

impl Attached {
    /// Attaches [`EDU`] to a new IOAS.
    fn new() -> Result<Self> {
        Self::with(EDU)
    }

    /// Attaches a PCI device to a new IOAS.
    fn with(bdf: &str) -> Result<Self> {
        let (device, iommufd) = bound(bdf)?;
        let ioas = iommufd.ioas()?;
        device.attach(ioas)?;
        Ok(Self {
            device,
            iommufd,
            ioas,
        })
    }

    /// Maps memory for reading and writing.
    fn map(&self, iova: u64, memory: &Memory) -> vfio_client::Result<()> {
        self.iommufd
            .map(self.ioas, iova, memory, MapFlags::ReadWrite)
    }
}

/// Checks that a device can be bound by another file, and its group opened: nothing has it.
#[track_caller]
fn is_free(bdf: &str) -> Result<()> {
    if requires::groups() {
        Group::open(pci::group_of(bdf)?)?;
    }
    if requires::device_files() {
        bound(bdf)?;
    }
    Ok(())
}

/// Lets a device copy a page of memory that is mapped at `iova`. Returns whether the device could
/// read and write it.
fn reaches(edu: &Edu, memory: &Memory, iova: u64) -> Result<bool> {
    let old = memory.to_vec(0, PAGE_SIZE);
    memory.fill(0, PAGE_SIZE, 0xa5);
    edu.load(iova, PAGE_SIZE as u64)?;
    memory.fill(0, PAGE_SIZE, 0x5a);
    edu.store(iova, PAGE_SIZE as u64)?;
    let new = memory.to_vec(0, PAGE_SIZE);
    memory.write(0, &old);
    ensure!(
        new.iter().all(|byte| *byte == new[0]),
        "a part of the page was copied"
    );
    Ok(new[0] == 0xa5)
}

/// Returns a descriptor number that is not in use.
const CLOSED: i32 = 999;

/// The sibling without its driver. Dropping this binds its driver again.
struct WithoutDriver {
    driver: String,
}

impl WithoutDriver {
    fn new() -> Result<Self> {
        let driver = pci::driver(SIBLING).unwrap_or_default();
        ensure!(!driver.is_empty(), "{SIBLING} has no driver");
        pci::unbind(SIBLING)?;
        Ok(Self { driver })
    }

    /// Binds its driver.
    fn bind_driver(&self) -> io::Result<()> {
        let path = format!("/sys/bus/pci/drivers/{}/bind", self.driver);
        fs::write(path, SIBLING)
    }

    /// Binds vfio-pci to it.
    fn bind_vfio(&self) -> vfio_client::Result<()> {
        pci::bind(SIBLING, "vfio-pci")
    }
}

impl Drop for WithoutDriver {
    fn drop(&mut self) {
        if pci::driver(SIBLING).as_deref() == Some("vfio-pci") {
            let _ = pci::unbind(SIBLING);
        }
        let _ = pci::write_attribute(SIBLING, "driver_override", "\n");
        if pci::driver(SIBLING).is_none() {
            let _ = self.bind_driver();
        }
    }
}

/// Returns whether an iommufd has an object.
fn has(iommufd: &Iommufd, id: u32) -> Result<bool> {
    // An object in use cannot be destroyed.
    match iommufd.destroy(id) {
        Err(error) if error.errno() == Errno::EBUSY => Ok(true),
        Err(error) if error.errno() == Errno::ENOENT => Ok(false),
        other => bail!("object {id} was not in use: {other:?}"),
    }
}

/// Returns the name of the device file of a device, given by its sysfs directory.
fn file_name(device: &Path) -> Result<String> {
    let file = Device::file_of(device)?;
    let name = file.file_name().and_then(|name| name.to_str());
    Ok(name.unwrap_or_default().to_owned())
}
