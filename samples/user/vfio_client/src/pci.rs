// SPDX-License-Identifier: GPL-2.0

//! PCI devices: sysfs and configuration space.

use crate::{
    Device,
    Error,
    RegionInfo,
    Result,
    uapi::VFIO_PCI_CONFIG_REGION_INDEX, //
};
use std::{
    fs,
    path::{
        Path,
        PathBuf, //
    },
};

/// The command register.
pub const COMMAND: u64 = 4;
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
    let link = sysfs(bdf).join("iommu_group");
    let target = fs::read_link(&link).map_err(io(&link))?;
    target
        .file_name()
        .and_then(|name| name.to_str()?.parse().ok())
        .ok_or(Error::new(link.display().to_string(), crate::Errno::EINVAL))
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

    /// Reads 16 bits.
    pub fn read_u16(&self, offset: u64) -> Result<u16> {
        let mut bytes = [0; 2];
        self.device.read(&self.region, offset, &mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }

    /// Reads 32 bits.
    pub fn read_u32(&self, offset: u64) -> Result<u32> {
        let mut bytes = [0; 4];
        self.device.read(&self.region, offset, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Writes 16 bits.
    pub fn write_u16(&self, offset: u64, value: u16) -> Result {
        self.device
            .write(&self.region, offset, &value.to_le_bytes())
    }

    /// Enables memory space and bus mastering.
    pub fn enable(&self) -> Result {
        let command = self.read_u16(COMMAND)?;
        self.write_u16(COMMAND, command | COMMAND_MEMORY | COMMAND_MASTER)
    }
}
