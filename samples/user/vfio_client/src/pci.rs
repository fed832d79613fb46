// SPDX-License-Identifier: GPL-2.0

//! PCI devices: sysfs and configuration space.

use crate::{
    Device,
    Error,
    Group,
    RegionInfo,
    Register,
    Result,
    Word,
    uapi::VFIO_PCI_CONFIG_REGION_INDEX, //
};
use std::{
    fs,
    path::{
        Path,
        PathBuf, //
    },
};

/// The vendor and, in the upper half, the device.
pub const ID: Register<u32> = Register::at(0x00);
/// The vendor.
pub const VENDOR: Register<u16> = Register::at(0x00);
/// The device of the vendor.
pub const DEVICE: Register<u16> = Register::at(0x02);
/// The command register.
pub const COMMAND: Register<u16> = Register::at(0x04);
/// The base address register of region 2.
pub const BAR2: Register<u32> = Register::at(0x18);
/// The upper half of [`BAR2`].
pub const BAR2_HIGH: Register<u16> = Register::at(0x1a);
/// Command bit: memory space enable.
pub const COMMAND_MEMORY: u16 = 1 << 1;
/// Command bit: bus master enable.
pub const COMMAND_MASTER: u16 = 1 << 2;

fn io(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    move |error| Error::from_io(path.display().to_string(), &error)
}

/// Returns the sysfs directory of a device.
pub fn sysfs(bdf: &str) -> PathBuf {
    Path::new("/sys/bus/pci/devices").join(bdf)
}

/// Returns the group number of a device.
pub fn group_of(bdf: &str) -> Result<u32> {
    Group::number_of(&sysfs(bdf))
}

/// Returns the devices of a group.
pub fn members(group: u32) -> Result<Vec<String>> {
    let dir = PathBuf::from(format!("/sys/kernel/iommu_groups/{group}/devices"));
    let mut names: Vec<_> = fs::read_dir(&dir)
        .map_err(io(&dir))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}

/// Returns the driver name of a device, if it is bound.
pub fn driver(bdf: &str) -> Option<String> {
    let target = fs::read_link(sysfs(bdf).join("driver")).ok()?;
    Some(target.file_name()?.to_str()?.to_owned())
}

/// Writes an attribute of a device.
pub fn write_attribute(bdf: &str, name: &str, value: &str) -> Result {
    let path = sysfs(bdf).join(name);
    fs::write(&path, value).map_err(io(&path))
}

/// Reads a hexadecimal attribute such as `vendor` or `class`.
pub fn read_number(bdf: &str, name: &str) -> Result<u32> {
    let path = sysfs(bdf).join(name);
    let text = fs::read_to_string(&path).map_err(io(&path))?;
    let digits = text.trim().trim_start_matches("0x");
    u32::from_str_radix(digits, 16)
        .map_err(|_| Error::new(path.display().to_string(), crate::Errno::EINVAL))
}

/// Unbinds a device from its driver. Waits until the driver releases it.
pub fn unbind(bdf: &str) -> Result {
    write_attribute(bdf, "driver/unbind", bdf)
}

/// Binds a device to the named driver. An empty name selects any driver that matches.
pub fn bind(bdf: &str, driver: &str) -> Result {
    let text = if driver.is_empty() { "\n" } else { driver };
    write_attribute(bdf, "driver_override", text)?;
    let path = Path::new("/sys/bus/pci/drivers_probe");
    fs::write(path, bdf).map_err(io(path))
}

/// Waits until a driver that is probing a device has bound to it. Returns whether it has.
///
/// The link `driver` of a device appears before the driver's probe, and so before the device has a
/// place in its group.
pub fn wait_bound(bdf: &str, driver: &str) -> Result<bool> {
    // The kernel answers under the lock that it holds while a driver probes the device.
    let path = PathBuf::from(format!("/sys/bus/pci/drivers/{driver}/bind"));
    match fs::write(&path, bdf).map_err(io(&path)) {
        Ok(()) => Ok(true),
        Err(error) if error.errno() == crate::Errno::EBUSY => {
            Ok(self::driver(bdf).as_deref() == Some(driver))
        }
        Err(error) => Err(error),
    }
}

/// The configuration space of an open device.
#[derive(Debug)]
pub struct Config<'a> {
    device: &'a Device,
    region: RegionInfo,
}

impl<'a> Config<'a> {
    /// Finds the configuration region of the device.
    pub fn of(device: &'a Device) -> Result<Self> {
        Ok(Self {
            device,
            region: device.region(VFIO_PCI_CONFIG_REGION_INDEX)?,
        })
    }

    /// Reads a register.
    pub fn get<T: Word>(&self, register: Register<T>) -> Result<T> {
        self.device.get(&self.region, register)
    }

    /// Writes a register.
    pub fn set<T: Word>(&self, register: Register<T>, value: T) -> Result {
        self.device.set(&self.region, register, value)
    }

    /// Enables memory space and bus mastering.
    pub fn enable(&self) -> Result {
        let command = self.get(COMMAND)?;
        self.set(COMMAND, command | COMMAND_MEMORY | COMMAND_MASTER)
    }
}
