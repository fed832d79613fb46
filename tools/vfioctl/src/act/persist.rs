// SPDX-License-Identifier: GPL-2.0

//! Binds devices at each boot, by udev or systemd.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::MetadataExt,
    path::{
        Path,
        PathBuf, //
    },
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
    /// The program that it runs as root.
    pub program: Option<PathBuf>,
}

/// Returns the usual path of the file for a device.
pub fn path(name: &str, by: Persistence) -> PathBuf {
    PathBuf::from(match by {
        Persistence::Udev => format!("/etc/udev/rules.d/40-vfioctl-{name}.rules"),
        // systemd takes colons in the names of units, but systemd-analyze does not.
        Persistence::Systemd => {
            let name = name.replace(':', "-");
            format!("/etc/systemd/system/vfioctl-{name}.service")
        }
    })
}

/// Returns the name that the files for a device have, also if the device is gone: a PCI address with
/// domain.
pub fn name_of_missing(name: &str) -> Option<String> {
    let name = name.rsplit('/').next()?.to_ascii_lowercase();
    let name = match name.matches(':').count() {
        1 => format!("0000:{name}"),
        _ => name,
    };
    let (bus, function) = name.rsplit_once('.')?;
    let parts: Vec<&str> = bus.split(':').collect();
    let is_hex = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    let is_function = function.len() == 1 && is_hex(&function);
    (parts.len() == 3 && parts.iter().all(is_hex) && is_function).then_some(name)
}

/// Returns the command that renews all initramfs, if the machine has one. They have copies of the rules.
pub fn initramfs_command(system: &System) -> Option<&'static str> {
    let images = system.names("/boot");
    let is_image = |name: &String| name.starts_with("initrd") || name.starts_with("initramfs");
    if !images.iter().any(is_image) {
        return None;
    }
    let programs = [
        ("/usr/sbin/update-initramfs", "update-initramfs -u -k all"),
        ("/usr/bin/dracut", "dracut --regenerate-all --force"),
        ("/usr/bin/mkinitcpio", "mkinitcpio --allpresets"),
    ];
    let (_, command) = programs.iter().find(|(path, _)| system.exists(path))?;
    Some(command)
}

/// Makes the file for a device.
pub fn configuration(
    system: &System,
    snapshot: &Snapshot,
    device: &Device,
    by: Persistence,
    force: bool,
) -> Result<Configuration> {
    if device.is_bridge() {
        return Err(Failure::refused(format!("{} is a PCI bridge", device.name)));
    }
    let devices = plan::together(snapshot, device);
    let devices: Vec<&Device> = devices.into_iter().filter(|d| d.pci.is_some()).collect();
    if devices.is_empty() {
        return Err(Failure::unsupported(format!(
            "{} is no PCI device; mdevctl creates mediated devices at boot",
            device.name
        )));
    }
    let function = devices.iter().find_map(|device| {
        let physical = device.pci.as_ref()?.physical_function.as_ref()?;
        Some((&device.name, physical))
    });
    if let (Some((function, physical)), Persistence::Udev) = (function, by) {
        return Err(Failure::refused(format!(
            "{function} is a virtual function of {physical}: when udev sees it, the kernel may have \
             bound another driver to it. '--by systemd' writes a unit, which has to start after \
             what creates the function"
        )));
    }
    Ok(match by {
        Persistence::Udev => udev(system, device, &devices),
        Persistence::Systemd => systemd(device, &devices, force),
    })
}

fn udev(system: &System, device: &Device, devices: &[&Device]) -> Configuration {
    let mut text = format!(
        "# Written by 'vfioctl persist {name}'; 'vfioctl persist --remove {name}' removes it.\n\
         # Binds the device and its IOMMU group to VFIO before another driver can. 'vfioctl=off' on the\n\
         # kernel's command line turns it off.\n\
         SUBSYSTEM==\"pci\", IMPORT{{cmdline}}=\"vfioctl\"\n\
         ENV{{vfioctl}}==\"off\", GOTO=\"vfioctl_end\"\n",
        name = device.name
    );
    for device in devices {
        let (Some(pci), Some(driver)) = (&device.pci, device.vfio_driver()) else {
            continue;
        };
        let ids = [
            ("vendor", pci.vendor),
            ("device", pci.device),
            ("subsystem_vendor", pci.subsystem_vendor),
            ("subsystem_device", pci.subsystem_device),
        ];
        text += &format!(
            "ACTION==\"add\", SUBSYSTEM==\"pci\", KERNEL==\"{}\", ",
            device.name
        );
        for (name, id) in ids {
            text += &format!("ATTR{{{name}}}==\"{id:#06x}\", ");
        }
        // Loading the driver binds only the devices that have the override by then. For those of
        // later events the driver is there already, and has to be offered the device.
        text += &format!(
            "ATTR{{driver_override}}=\"{driver}\", RUN{{builtin}}+=\"kmod load {driver}\", \
             RUN{{program}}+=\"/bin/sh -c 'echo %k >/sys/bus/pci/drivers_probe'\"\n"
        );
    }
    text += "LABEL=\"vfioctl_end\"\n";
    // Before 80-drivers.rules, which loads the modules of other drivers.
    Configuration {
        path: path(&device.name, Persistence::Udev),
        text,
        next: match initramfs_command(system) {
            Some(command) => format!(
                "it applies from the next boot on. If the initramfs loads the device's driver, run \
                 '{command}', too"
            ),
            None => "it applies from the next boot on".to_owned(),
        },
        program: None,
    }
}

fn systemd(device: &Device, devices: &[&Device], force: bool) -> Configuration {
    let name = &device.name;
    let model = device.model().unwrap_or_default();
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/usr/sbin/vfioctl"));
    let mut others = String::new();
    for other in devices.iter().filter(|other| other.name != *name) {
        let model = other.model().unwrap_or_default();
        others += &format!(" --expect {}={model}", other.name);
    }
    let start = word(&program.to_string_lossy());
    let force = if force { " --force" } else { "" };
    let path = path(name, Persistence::Systemd);
    let unit = path.file_name().unwrap_or_default().to_string_lossy();
    let text = format!(
        "# Written by 'vfioctl persist --by systemd {name}'; 'vfioctl persist --remove {name}' removes \
         it.\n\
         [Unit]\n\
         Description=Bind {name} and its IOMMU group to VFIO\n\
         After=systemd-modules-load.service systemd-udev-settle.service\n\
         Before=libvirtd.service virtqemud.service\n\
         ConditionKernelCommandLine=!vfioctl=off\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         ExecStart={start} bind{force} --expect {model}{others} {name}\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    );
    Configuration {
        next: format!("enable it: systemctl enable --now {unit}"),
        path,
        text,
        program: Some(program),
    }
}

/// Writes a word as the command lines of systemd's units have it.
fn word(text: &str) -> String {
    let text = text.replace('%', "%%").replace('$', "$$");
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-%+:@".contains(c);
    if text.chars().all(plain) {
        text
    } else {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

/// Fails if a user other than root can replace a program that is to run as root.
fn check_program(program: &Path) -> Result<()> {
    for path in program.ancestors() {
        let status = fs::metadata(path).with_context(|| format!("reading {}", path.display()))?;
        // In a folder like /tmp, users can replace only what is their own.
        let is_sticky = status.is_dir() && status.mode() & 0o1000 != 0;
        if status.uid() != 0 || (status.mode() & 0o022 != 0 && !is_sticky) {
            return Err(Failure::refused(format!(
                "users other than root can change {}, and the unit would run {} as root: install \
                 vfioctl in a folder of root, such as /usr/local/sbin, and run it from there",
                path.display(),
                program.display()
            )));
        }
    }
    Ok(())
}

/// Writes the file.
pub fn write(system: &System, configuration: &Configuration) -> Result<()> {
    if let Some(program) = &configuration.program {
        check_program(program)?;
    }
    replace(&system.path(&configuration.path), &configuration.text)
}

/// Removes the files of some kinds for a device; returns their usual paths.
pub fn remove(system: &System, name: &str, kinds: &[Persistence]) -> Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    for kind in kinds {
        let file = path(name, *kind);
        if *kind == Persistence::Systemd {
            // The link of 'systemctl enable'.
            let unit = file.file_name().unwrap_or_default();
            let wants = "/etc/systemd/system/multi-user.target.wants";
            remove_file(&system.path(wants).join(unit))?;
        }
        if remove_file(&system.path(&file))? {
            removed.push(file);
        }
    }
    Ok(removed)
}

/// Removes a file; returns whether there was one.
fn remove_file(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("removing {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        status::{
            Status,
            status_of, //
        },
        system::devices::Pci, //
    };
    use clap::ValueEnum;
    use std::os::unix::fs::PermissionsExt;

    fn no_system() -> System {
        System::new(Some("/nonexistent".as_ref()))
    }

    fn snapshot() -> Snapshot {
        let mut snapshot = Snapshot::default();
        let device = Device {
            name: "0000:06:00.0".into(),
            bus: "pci".into(),
            pci: Some(Pci {
                vendor: 0x8086,
                device: 0xd3,
                subsystem_vendor: 0x1af4,
                subsystem_device: 0x1100,
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
        let rule =
            configuration(&no_system(), &snapshot, device, Persistence::Udev, false).unwrap();
        assert!(rule.text.contains(
            "KERNEL==\"0000:06:00.0\", ATTR{vendor}==\"0x8086\", ATTR{device}==\"0x00d3\", \
             ATTR{subsystem_vendor}==\"0x1af4\", ATTR{subsystem_device}==\"0x1100\", \
             ATTR{driver_override}=\"vfio-pci\""
        ));
    }

    #[test]
    fn the_kernel_command_line_turns_both_off() {
        let snapshot = snapshot();
        let device = &snapshot.devices["0000:06:00.0"];
        let text = |by| {
            configuration(&no_system(), &snapshot, device, by, false)
                .unwrap()
                .text
        };
        let rule = text(Persistence::Udev);
        let lines: Vec<&str> = rule.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(lines[0], "SUBSYSTEM==\"pci\", IMPORT{cmdline}=\"vfioctl\"");
        assert_eq!(lines[1], "ENV{vfioctl}==\"off\", GOTO=\"vfioctl_end\"");
        assert_eq!(lines[lines.len() - 1], "LABEL=\"vfioctl_end\"");
        let unit = text(Persistence::Systemd);
        let (head, _) = unit.split_once("[Service]").unwrap();
        assert!(head.contains("\nConditionKernelCommandLine=!vfioctl=off\n"));
    }

    #[test]
    fn a_unit_expects_the_model() {
        let snapshot = snapshot();
        let device = &snapshot.devices["0000:06:00.0"];
        let unit =
            configuration(&no_system(), &snapshot, device, Persistence::Systemd, false).unwrap();
        assert!(unit.text.contains("bind --expect 8086:00d3 0000:06:00.0\n"));
        let mut sibling = device.clone();
        sibling.name = "0000:06:00.1".into();
        let unit = systemd(device, &[device, &sibling], false);
        let words = "bind --expect 8086:00d3 --expect 0000:06:00.1=8086:00d3 0000:06:00.0\n";
        assert!(unit.text.contains(words));
        let unit =
            configuration(&no_system(), &snapshot, device, Persistence::Systemd, true).unwrap();
        assert!(unit.text.contains("bind --force --expect "));
    }

    #[test]
    fn a_rule_is_too_late_for_virtual_functions() {
        let mut snapshot = snapshot();
        let device = snapshot.devices.get_mut("0000:06:00.0").unwrap();
        device.pci.as_mut().unwrap().physical_function = Some("0000:05:00.0".into());
        let device = &snapshot.devices["0000:06:00.0"];
        let of = |by| configuration(&no_system(), &snapshot, device, by, false);
        assert!(of(Persistence::Systemd).is_ok());
        let error = of(Persistence::Udev).err().unwrap();
        assert_eq!(status_of(&error), Status::Refused);
        assert!(
            error
                .to_string()
                .contains("a virtual function of 0000:05:00.0")
        );
    }

    #[test]
    fn programs_of_units_are_of_root() {
        let folder = tempfile::tempdir().unwrap();
        let allow = |mode| {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
        };
        let program = folder.path().join("vfioctl");
        fs::write(&program, "").unwrap();
        let system = System::new(Some(folder.path()));
        let unit = |program: &str| Configuration {
            path: "/unit".into(),
            text: String::new(),
            next: String::new(),
            program: Some(program.into()),
        };
        let unit = unit(program.to_str().unwrap());
        allow(0o777);
        let error = write(&system, &unit).unwrap_err();
        assert_eq!(status_of(&error), Status::Refused);
        assert!(!system.exists("/unit"));
        allow(0o1777);
        write(&system, &unit).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(write(&system, &unit).is_err());
    }

    #[test]
    fn the_initramfs_is_renewed() {
        let folder = tempfile::tempdir().unwrap();
        let system = System::new(Some(folder.path()));
        assert_eq!(initramfs_command(&system), None);
        replace(&system.path("/usr/bin/dracut"), "").unwrap();
        assert_eq!(initramfs_command(&system), None);
        replace(&system.path("/boot/initramfs-7.3.img"), "").unwrap();
        let dracut = "dracut --regenerate-all --force";
        assert_eq!(initramfs_command(&system), Some(dracut));
        let snapshot = snapshot();
        let device = &snapshot.devices["0000:06:00.0"];
        let rule = configuration(&system, &snapshot, device, Persistence::Udev, false).unwrap();
        assert!(rule.next.contains(dracut));
        replace(&system.path("/usr/sbin/update-initramfs"), "").unwrap();
        assert_eq!(
            initramfs_command(&system),
            Some("update-initramfs -u -k all")
        );
    }

    #[test]
    fn words_of_units() {
        assert_eq!(word("/usr/sbin/vfioctl"), "/usr/sbin/vfioctl");
        assert_eq!(word("/a b/$x%y"), "\"/a b/$$x%%y\"");
        assert_eq!(word("/a\\\"b"), "\"/a\\\\\\\"b\"");
    }

    #[test]
    fn names_of_devices_that_are_gone() {
        let name = |text| name_of_missing(text);
        assert_eq!(name("06:00.0").as_deref(), Some("0000:06:00.0"));
        assert_eq!(name("0000:0A:00.0").as_deref(), Some("0000:0a:00.0"));
        assert_eq!(name("10000:e1:00.0").as_deref(), Some("10000:e1:00.0"));
        for odd in ["", "7", "vfio0", "06:00", "06:00.x", "../x:y:z.0", "::.0"] {
            assert_eq!(name(odd), None, "{odd}");
        }
    }

    #[test]
    fn files_are_removed_without_the_device() {
        let folder = tempfile::tempdir().unwrap();
        let system = System::new(Some(folder.path()));
        let wants = "/etc/systemd/system/multi-user.target.wants/vfioctl-0000-06-00.0.service";
        for kind in Persistence::value_variants() {
            replace(&system.path(path("0000:06:00.0", *kind)), "").unwrap();
        }
        replace(&system.path(wants), "").unwrap();
        let kinds = Persistence::value_variants();
        assert_eq!(remove(&system, "0000:06:00.0", kinds).unwrap().len(), 2);
        assert!(!system.exists(wants));
        assert!(remove(&system, "0000:06:00.0", kinds).unwrap().is_empty());
    }
}
