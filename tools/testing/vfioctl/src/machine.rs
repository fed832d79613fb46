// SPDX-License-Identifier: GPL-2.0

//! The test machine.

use anyhow::{
    Context,
    Result,
    bail,
    ensure, //
};
use std::{
    fs,
    path::{
        Path,
        PathBuf, //
    },
    process::Command,
    thread::sleep,
    time::{
        Duration,
        Instant, //
    },
};

use crate::program::vfioctl;

/// A device without a driver.
pub const EDU: &str = "0000:00:03.0";
/// A disk.
pub const DISK: &str = "0000:00:04.0";
/// A device without a driver, in the group of [`SIBLING`].
pub const SHARED: &str = "0000:00:05.0";
/// A device of the host, in the group of [`SHARED`].
pub const SIBLING: &str = "0000:00:05.1";
/// A network controller.
pub const NIC: &str = "0000:00:06.0";
/// A graphics adapter with the console.
pub const VGA: &str = "0000:00:07.0";
/// The user nobody.
pub const NOBODY: u32 = 65534;

/// The devices with their drivers.
const DRIVERS: [(&str, &str); 6] = [
    (EDU, ""),
    (DISK, "nvme"),
    (SHARED, ""),
    (SIBLING, "virtio-pci"),
    (NIC, "e1000e"),
    (VGA, ""),
];

fn sysfs(device: &str) -> PathBuf {
    Path::new("/sys/bus/pci/devices").join(device)
}

/// Returns the driver of a device; empty if it has none.
pub fn driver(device: &str) -> String {
    let link = fs::read_link(sysfs(device).join("driver")).unwrap_or_default();
    link.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Expects the driver of a device.
pub fn has_driver(device: &str, expected: &str) -> Result<()> {
    let found = driver(device);
    ensure!(
        found == expected,
        "expected the driver '{expected}' of {device}, found '{found}'"
    );
    Ok(())
}

/// Expects a `driver_override`; empty if there is none.
pub fn has_override(device: &str, expected: &str) -> Result<()> {
    let text = fs::read_to_string(sysfs(device).join("driver_override"))?;
    let found = text.trim_end().replace("(null)", "");
    ensure!(
        found == expected,
        "expected the override '{expected}' of {device}, found '{found}'"
    );
    Ok(())
}

/// Returns the number of the group of a device.
pub fn group(device: &str) -> Result<u32> {
    support::devices::group_number(device)
}

/// Writes to a file of the kernel.
pub fn store(path: impl AsRef<Path>, text: &str) -> Result<()> {
    let path = path.as_ref();
    fs::write(path, text).with_context(|| format!("writing {text} to {}", path.display()))
}

/// Sets the `driver_override` of a device.
pub fn set_override(device: &str, driver: &str) -> Result<()> {
    store(
        sysfs(device).join("driver_override"),
        &format!("{driver}\n"),
    )
}

/// Lets the kernel bind a device.
pub fn probe(device: &str) -> Result<()> {
    store("/sys/bus/pci/drivers_probe", device)
}

/// Unbinds a device.
pub fn unbind(device: &str) -> Result<()> {
    store(sysfs(device).join("driver/unbind"), device)
}

/// Waits until the disk of the host is there, and returns its node.
pub fn disk() -> Result<PathBuf> {
    let node = Path::new("/dev/nvme0n1");
    let limit = Instant::now() + Duration::from_secs(60);
    while !node.exists() {
        ensure!(
            Instant::now() < limit,
            "expected {} within a minute",
            node.display()
        );
        sleep(Duration::from_millis(100));
    }
    Ok(node.to_owned())
}

/// Returns the network interface of the network controller.
pub fn interface() -> Result<String> {
    let mut entries = fs::read_dir(sysfs(NIC).join("net"))?;
    let entry = entries
        .next()
        .context("the network controller has no interface")??;
    Ok(entry.file_name().to_string_lossy().into_owned())
}

/// Returns the network controller that can have virtual functions.
pub fn physical_function() -> Result<String> {
    for entry in fs::read_dir("/sys/bus/pci/devices")? {
        let path = entry?.path();
        if path.join("sriov_numvfs").exists() {
            let name = path.file_name().unwrap_or_default();
            return Ok(name.to_string_lossy().into_owned());
        }
    }
    bail!("expected a device that can have virtual functions")
}

/// Runs a shell command, which must succeed.
pub fn shell(command: &str) -> Result<()> {
    let output = Command::new("sh").args(["-c", command]).output()?;
    ensure!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Gives all devices back to their drivers. Returns an error if a case did not.
pub fn restore() -> Result<()> {
    let mut wrong: Vec<String> = DRIVERS
        .iter()
        .filter(|(device, expected)| driver(device) != *expected)
        .map(|(device, _)| format!("{device} with '{}'", driver(device)))
        .collect();
    for (device, expected) in DRIVERS {
        set_override(device, "")?;
        if driver(device) != expected {
            vfioctl(&format!("restore {device}"))?;
        }
        if driver(device) != expected && !driver(device).is_empty() {
            unbind(device)?;
        }
        if driver(device) != expected {
            set_override(device, expected)?;
            probe(device)?;
            set_override(device, "")?;
        }
    }
    for device in fs::read_dir("/sys/bus/mdev/devices").into_iter().flatten() {
        let path = device?.path();
        wrong.push(path.display().to_string());
        store(path.join("remove"), "1")?;
    }
    disk()?;
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("expected all drivers as before, found {}", wrong.join(", "))
}
