// SPDX-License-Identifier: GPL-2.0

//! `persist`.

use anyhow::{
    Context,
    Result,
    ensure, //
};
use std::{
    fs,
    os::unix::fs::symlink,
    path::Path, //
};

use super::Case;
use crate::{
    machine::{
        DISK,
        SHARED,
        SIBLING,
        VGA,
        driver,
        has_driver,
        probe,
        set_override,
        shell,
        unbind, //
    },
    program::{
        shell_said,
        vfioctl, //
    },
};

/// Returns the cases.
pub fn cases() -> Vec<Case> {
    vec![
        ("persist::rule_and_unit", Box::new(persist)),
        (
            "persist::devices_of_a_group_arrive_in_turn",
            Box::new(in_turn),
        ),
        ("persist::device_is_gone", Box::new(gone)),
        ("persist::only_by_force", Box::new(force)),
    ]
}

fn persist() -> Result<()> {
    let rule = format!("/etc/udev/rules.d/40-vfioctl-{SHARED}.rules");
    vfioctl(&format!("persist {SHARED}"))?
        .exits(0)?
        .says(&rule)?;
    let text = fs::read_to_string(&rule)?;
    for device in [SHARED, SIBLING] {
        ensure!(
            text.contains(&format!("KERNEL==\"{device}\"")),
            "expected {device}:\n{text}"
        );
    }
    vfioctl(&format!("persist --remove {SHARED}"))?.exits(0)?;
    vfioctl(&format!("persist --remove {SHARED}"))?.exits(3)?;
    initramfs()?;
    let said = vfioctl(&format!("persist --by systemd --print {DISK}"))?.exits(0)?;
    let line = said
        .out
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="));
    let line = line.with_context(|| format!("expected ExecStart:\n{}", said.out))?;
    shell(line).context("expected that the unit's command works")?;
    has_driver(DISK, "vfio-pci")?;
    vfioctl(&format!("restore {DISK}"))?.exits(0)?;
    Ok(())
}

/// The initramfs has copies of the rules.
fn initramfs() -> Result<()> {
    let (image, program) = ("/boot/initrd.img-1", "/usr/sbin/update-initramfs");
    for file in [image, program] {
        fs::create_dir_all(Path::new(file).parent().context("expected a folder")?)?;
        fs::write(file, "")?;
    }
    let command = "update-initramfs -u -k all";
    let outcome = vfioctl(&format!("persist {SHARED}")).and_then(|said| {
        said.exits(0)?.says(command)?;
        let removed = vfioctl(&format!("persist --remove {SHARED}"))?;
        removed
            .exits(0)?
            .says("a copy of the rule")?
            .says(command)?;
        Ok(())
    });
    fs::remove_file(image)?;
    fs::remove_file(program)?;
    outcome
}

/// Does what udev does by a line of the rule: writes the override, loads the driver, and runs the
/// program.
fn apply(line: &str) -> Result<()> {
    let value = |key: &str| {
        let (_, rest) = line.split_once(key)?;
        rest.split('"').next()
    };
    let device = value("KERNEL==\"").context("expected a device")?;
    let driver = value("ATTR{driver_override}=\"").context("expected an override")?;
    set_override(device, driver)?;
    let module = value("RUN{builtin}+=\"kmod load ").context("expected a module")?;
    shell(&format!("modprobe {module}"))?;
    if let Some(program) = value("RUN{program}+=\"") {
        shell(&program.replace("%k", device))?;
    }
    Ok(())
}

/// Loading the driver for the first device binds only that one.
fn in_turn() -> Result<()> {
    let rule = vfioctl(&format!("persist --print {SHARED}"))?.exits(0)?.out;
    unbind(SIBLING)?;
    let lines = rule.lines().filter(|line| line.starts_with("ACTION"));
    let outcome = lines.map(apply).collect::<Result<Vec<()>>>().and_then(|_| {
        has_driver(SHARED, "vfio-pci")?;
        has_driver(SIBLING, "vfio-pci")
    });
    set_override(SIBLING, "")?;
    vfioctl(&format!("restore {SHARED}"))?.exits(0)?;
    if driver(SIBLING).is_empty() {
        probe(SIBLING)?;
    }
    outcome
}

fn gone() -> Result<()> {
    let missing = "0000:00:1e.7";
    vfioctl(&format!("persist {missing}"))?.exits(3)?;
    fs::create_dir_all("/etc/systemd/system/multi-user.target.wants")?;
    let unit = "/etc/systemd/system/vfioctl-0000-00-1e.7.service";
    let link = "/etc/systemd/system/multi-user.target.wants/vfioctl-0000-00-1e.7.service";
    fs::write(unit, "")?;
    symlink(unit, link)?;
    vfioctl("persist --remove 00:1e.7")?.exits(0)?.says(unit)?;
    ensure!(
        fs::symlink_metadata(link).is_err(),
        "expected that {link} is gone"
    );
    vfioctl("persist --remove 00:1e.7")?
        .exits(3)?
        .complains("there is no")?;
    Ok(())
}

fn force() -> Result<()> {
    let refused = vfioctl(&format!("persist --by systemd {VGA}"))?.exits(4)?;
    refused
        .complains("the console is on it")?
        .complains("--force")?;
    vfioctl(&format!("persist --by systemd --force {VGA}"))?.exits(0)?;
    let unit = "/etc/systemd/system/vfioctl-0000-00-07.0.service";
    let text = fs::read_to_string(unit)?;
    ensure!(
        text.contains("bind --force --expect"),
        "expected --force:\n{text}"
    );
    vfioctl(&format!("persist --remove {VGA}"))?.exits(0)?;
    let folder = "/tmp/others";
    let said = shell_said(&format!(
        "mkdir {folder} && chmod 777 {folder} && cp \"$(command -v vfioctl)\" {folder} && \
         {folder}/vfioctl persist --by systemd --force {VGA}"
    ));
    fs::remove_dir_all(folder)?;
    said?
        .exits(4)?
        .complains("users other than root can change /tmp/others")?;
    ensure!(!Path::new(unit).exists(), "expected no {unit}");
    Ok(())
}
