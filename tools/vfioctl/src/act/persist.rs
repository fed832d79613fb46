// SPDX-License-Identifier: GPL-2.0

//! Binds devices at each boot, by udev or systemd.

use std::{
    fs,
    io::ErrorKind,
    path::PathBuf, //
};

use anyhow::{
    Context,
    Result, //
};

use super::replace;
use crate::{
    cli::Persistence,
    decide::plan,
    status::Failure,
    system::{
        Snapshot,
        System,
        devices::Device, //
    },
};

/// A file that binds a device and its group at boot.
pub struct Configuration {
    /// Its usual path.
    pub path: PathBuf,
    /// Its contents.
    pub text: String,
    /// What the user has to do to make it effective at once.
    pub next: String,
}

/// Makes the file for a device.
pub fn configuration(
    snapshot: &Snapshot,
    device: &Device,
    by: Persistence,
) -> Result<Configuration> {
    let devices = plan::together(snapshot, device);
    let devices: Vec<&Device> = devices.into_iter().filter(|d| d.pci.is_some()).collect();
    if devices.is_empty() {
        return Err(Failure::unsupported(format!(
            "{} is no PCI device; mdevctl creates mediated devices at boot",
            device.name
        )));
    }
    Ok(match by {
        Persistence::Udev => udev(device, &devices),
        Persistence::Systemd => systemd(device),
    })
}

fn udev(device: &Device, devices: &[&Device]) -> Configuration {
    let mut text = format!(
        "# Written by 'vfioctl persist {name}'; 'vfioctl persist --remove {name}' removes it.\n\
         # Binds the device and its IOMMU group to VFIO before another driver can.\n",
        name = device.name
    );
    for device in devices {
        let (Some(pci), Some(driver)) = (&device.pci, device.vfio_driver()) else {
            continue;
        };
        text += &format!(
            "ACTION==\"add\", SUBSYSTEM==\"pci\", KERNEL==\"{}\", ATTR{{vendor}}==\"{:#06x}\", \
             ATTR{{device}}==\"{:#06x}\", ATTR{{driver_override}}=\"{driver}\", \
             RUN{{builtin}}+=\"kmod load {driver}\"\n",
            device.name, pci.vendor, pci.device
        );
    }
    // Before 80-drivers.rules, which loads the modules of other drivers.
    Configuration {
        path: PathBuf::from(format!(
            "/etc/udev/rules.d/40-vfioctl-{}.rules",
            device.name
        )),
        text,
        next: "it applies from the next boot on. If the initramfs loads the device's driver, run \
               'update-initramfs -u', too"
            .to_owned(),
    }
}

fn systemd(device: &Device) -> Configuration {
    let name = &device.name;
    let model = device.model().unwrap_or_default();
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/usr/bin/vfioctl"));
    let program = program.display();
    let unit = format!("vfioctl-{name}.service");
    let text = format!(
        "# Written by 'vfioctl persist --by systemd {name}'.\n\
         [Unit]\n\
         Description=Bind {name} and its IOMMU group to VFIO\n\
         After=systemd-modules-load.service systemd-udev-settle.service\n\
         Before=libvirtd.service virtqemud.service\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         ExecStart={program} bind --expect {model} {name}\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    );
    Configuration {
        path: PathBuf::from(format!("/etc/systemd/system/{unit}")),
        text,
        next: format!("enable it: systemctl enable --now {unit}"),
    }
}

/// Writes the file.
pub fn write(system: &System, configuration: &Configuration) -> Result<()> {
    replace(&system.path(&configuration.path), &configuration.text)
}

/// Removes the file; returns whether there was one.
pub fn remove(system: &System, configuration: &Configuration) -> Result<bool> {
    let path = system.path(&configuration.path);
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("removing {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::devices::Pci;

    fn snapshot() -> Snapshot {
        let mut snapshot = Snapshot::default();
        let device = Device {
            name: "0000:06:00.0".into(),
            bus: "pci".into(),
            pci: Some(Pci {
                vendor: 0x8086,
                device: 0xd3,
                ..Pci::default()
            }),
            ..Device::default()
        };
        snapshot.devices.insert(device.name.clone(), device);
        snapshot
    }

    #[test]
    fn a_rule_names_address_and_model() {
        let snapshot = snapshot();
        let device = &snapshot.devices["0000:06:00.0"];
        let rule = configuration(&snapshot, device, Persistence::Udev).unwrap();
        assert!(rule.text.contains(
            "KERNEL==\"0000:06:00.0\", ATTR{vendor}==\"0x8086\", ATTR{device}==\"0x00d3\", \
             ATTR{driver_override}=\"vfio-pci\""
        ));
    }

    #[test]
    fn a_unit_expects_the_model() {
        let snapshot = snapshot();
        let device = &snapshot.devices["0000:06:00.0"];
        let unit = configuration(&snapshot, device, Persistence::Systemd).unwrap();
        assert!(unit.text.contains("bind --expect 8086:00d3 0000:06:00.0\n"));
    }
}
