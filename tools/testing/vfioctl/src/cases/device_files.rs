// SPDX-License-Identifier: GPL-2.0

//! Devices that are opened by files of their own, on a kernel that has them.

use anyhow::{
    Context,
    Result,
    ensure, //
};
use nix::unistd::{
    Uid,
    chown, //
};
use std::{
    fs,
    path::Path, //
};
use vfio_client::{
    Device,
    pci, //
};

use super::{
    Case,
    HELPER, //
};
use crate::{
    hold::{
        Door,
        Hold,
        hold,
        hold_by, //
    },
    machine::{
        EDU,
        NOBODY,
        SHARED,
        SIBLING,
        group,
        has_driver, //
    },
    program::{
        expect,
        obstacle,
        vfioctl, //
    }, //
};

const IOMMUFD: &str = "/dev/iommu";

/// Returns the cases; none on a kernel without device files.
pub fn cases() -> Vec<Case> {
    if !Path::new(IOMMUFD).exists() {
        return Vec::new();
    }
    vec![
        ("device_files::names_and_list", Box::new(names)),
        ("device_files::holders", Box::new(holders)),
        ("device_files::why_open", Box::new(open)),
        ("device_files::why_open_by_sibling", Box::new(open_sibling)),
        ("device_files::why_user_without_access", Box::new(access)),
        ("device_files::allow", Box::new(allow)),
        ("device_files::restore_while_open", Box::new(restore)),
    ]
}

/// Returns the path and the name of the file of a device.
fn file(device: &str) -> Result<(String, String)> {
    let path = Device::file_of(&pci::sysfs(device))?;
    let name = path.file_name().context("expected a name")?;
    Ok((
        path.display().to_string(),
        name.to_string_lossy().into_owned(),
    ))
}

fn names() -> Result<()> {
    vfioctl(&format!("bind {EDU}"))?.exits(0)?;
    let (path, name) = file(EDU)?;
    for name in [&name, &path] {
        let verdict = vfioctl(&format!("why {name} --json"))?.exits(0)?.json()?;
        expect(&verdict, "device", EDU)?;
    }
    vfioctl(&format!("why {EDU}"))?.exits(0)?.says(&path)?;
    let list = vfioctl("list --json")?.exits(0)?.json()?;
    let number = group(EDU)?;
    let groups = list["groups"].as_array().context("expected groups")?;
    let found = groups.iter().find(|group| group["id"] == number);
    let found = found.with_context(|| format!("expected group {number}"))?;
    expect(&found["members"][0], "vfio", name.as_str())?;
    vfioctl(&format!("restore {name}"))?.exits(0)?;
    vfioctl(&format!("why {name}"))?.exits(3)?;
    has_driver(EDU, "")
}

fn holders() -> Result<()> {
    vfioctl(&format!("bind {EDU}"))?.exits(0)?;
    let (_, name) = file(EDU)?;
    let helper = hold_by(EDU, Door::File)?;
    let said = vfioctl("holders --json")?.exits(0)?.json()?;
    let files = said.as_array().context("expected an array")?;
    for kind in ["cdev", "iommufd"] {
        let file = files.iter().find(|file| file["file"] == kind);
        let file = file.with_context(|| format!("expected a {kind}:\n{said:#}"))?;
        expect(file, "pid", helper.id())?;
        expect(file, "command", HELPER)?;
        expect(file, "uid", 0)?;
        if kind == "cdev" {
            expect(file, "name", name.as_str())?;
        }
    }
    ensure!(
        files.iter().all(|file| file["file"] != "group"),
        "expected that the group is not open:\n{said:#}"
    );
    for device in [EDU, &name] {
        vfioctl(&format!("holders {device}"))?
            .exits(0)?
            .says(&helper.id().to_string())?
            .says(&format!("device file {name}"))?;
    }
    helper.finish()?;
    vfioctl("holders")?.exits(0)?.says("No process")?;
    vfioctl(&format!("restore {EDU}"))?.exits(0)?;
    Ok(())
}

/// A device that is open by one file cannot be opened by the other one.
fn open() -> Result<()> {
    vfioctl(&format!("bind {EDU}"))?.exits(0)?;
    for door in [Door::File, Door::Group] {
        let helper = hold_by(EDU, door)?;
        let found = obstacle(EDU, "", "open")?;
        expect(&found, "pid", helper.id())?;
        let other = Hold {
            device: EDU,
            door: match door {
                Door::File => Door::Group,
                Door::Group => Door::File,
            },
            uid: 0,
            map: 4096,
            limit: 0,
        };
        let (_, refused) = other.start()?;
        ensure!(
            refused != "mapped",
            "expected that the device can't be opened by the other file"
        );
        helper.kill()?;
        vfioctl(&format!("why {EDU}"))?.exits(0)?;
    }
    vfioctl(&format!("restore {EDU}"))?.exits(0)?;
    Ok(())
}

/// The other device of the group is open: this one can be opened only with the same iommufd.
fn open_sibling() -> Result<()> {
    vfioctl(&format!("bind {SHARED}"))?.exits(0)?;
    let helper = hold_by(SIBLING, Door::File)?;
    let (_, name) = file(SIBLING)?;
    vfioctl(&format!("holders {SHARED}"))?
        .exits(0)?
        .says(&format!("device file {name}"))?;
    let found = obstacle(SHARED, "", "open")?;
    expect(&found, "pid", helper.id())?;
    helper.finish()?;
    vfioctl(&format!("why {SHARED}"))?.exits(0)?;
    vfioctl(&format!("restore {SHARED}"))?.exits(0)?;
    has_driver(SIBLING, "virtio-pci")
}

/// A user needs either the group and the file for containers, or the device file and that of IOMMUFD.
fn access() -> Result<()> {
    vfioctl(&format!("bind {EDU}"))?.exits(0)?;
    let (path, _) = file(EDU)?;
    let owners = |uid: u32, files: &[&str]| -> Result<()> {
        for file in files {
            chown(*file, Some(Uid::from_raw(uid)), None).with_context(|| (*file).to_owned())?;
        }
        Ok(())
    };
    let denied = |node: &str| -> Result<()> {
        let found = obstacle(EDU, "--user nobody", "access")?;
        expect(&found, "help", vec![format!("vfioctl allow nobody {EDU}")])?;
        let text = found["text"].as_str().unwrap_or_default();
        ensure!(text.contains(node), "expected {node}: {text}");
        Ok(())
    };
    let group = format!("/dev/vfio/{}", group(EDU)?);
    denied(&group)?;
    owners(NOBODY, &[&path])?;
    denied(&group)?;
    owners(NOBODY, &[IOMMUFD])?;
    let outcome = vfioctl(&format!("why {EDU} --user nobody"))?.exits(0);
    owners(0, &[&path, IOMMUFD])?;
    outcome?;
    denied(&group)?;
    owners(NOBODY, &[&group])?;
    vfioctl(&format!("why {EDU} --user nobody"))?.exits(0)?;
    vfioctl(&format!("restore {EDU}"))?.exits(0)?;
    Ok(())
}

fn allow() -> Result<()> {
    vfioctl(&format!("bind {EDU}"))?.exits(0)?;
    let (path, name) = file(EDU)?;
    let before = fs::metadata(IOMMUFD)?;
    let nobody = |door| Hold {
        device: EDU,
        door,
        uid: NOBODY,
        map: 4096,
        limit: 0,
    };
    let opens = |door, expected: &str| -> Result<()> {
        let (helper, line) = nobody(door).start()?;
        ensure!(
            line.contains(expected),
            "expected '{expected}' when nobody opens it: {line}"
        );
        helper.kill()
    };
    opens(Door::File, "EACCES")?;
    let group = format!("/dev/vfio/{}", group(EDU)?);
    for options in ["", "--owner"] {
        let mut said = vfioctl(&format!("allow {options} nobody {name}"))?.exits(0)?;
        for node in [&path, &group, IOMMUFD] {
            said = said.says(node)?;
        }
        for door in [Door::File, Door::Group] {
            opens(door, "mapped")?;
        }
        // Others may use IOMMUFD, so that stays.
        let said = vfioctl(&format!("allow --remove nobody {EDU}"))?.exits(0)?;
        ensure!(
            !said.out.contains(IOMMUFD),
            "expected that {IOMMUFD} stays: {}",
            said.out
        );
        for door in [Door::File, Door::Group] {
            opens(door, "EACCES")?;
        }
    }
    chown(IOMMUFD, Some(Uid::from_raw(0)), None)?;
    fs::set_permissions(IOMMUFD, before.permissions())?;
    vfioctl(&format!("restore {EDU}"))?.exits(0)?;
    Ok(())
}

fn restore() -> Result<()> {
    vfioctl(&format!("bind {EDU}"))?.exits(0)?;
    let (_, name) = file(EDU)?;
    let helper = hold_by(EDU, Door::File)?;
    vfioctl(&format!("restore {EDU}"))?
        .exits(4)?
        .complains(&format!("({})", helper.id()))?
        .complains(&format!("device file {name}"))?;
    has_driver(EDU, "vfio-pci")?;
    helper.finish()?;
    hold(EDU)?.finish()?;
    vfioctl(&format!("restore {EDU}"))?.exits(0)?;
    has_driver(EDU, "")
}
