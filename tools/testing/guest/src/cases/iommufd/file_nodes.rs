// SPDX-License-Identifier: GPL-2.0

//! The nodes and the class of device files.

use super::{
    bound,
    file_name,
    open, //
};
use crate::{
    cases::sysfs::names_in,
    env::{
        EDU,
        NVME,
        Rebind,
        SHARED, //
    },
    harness::{
        Failure,
        cases, //
    },
};
use anyhow::{
    Context,
    Result, //
};
use nix::{
    fcntl::OFlag,
    sys::stat::{
        Mode,
        major,
        minor, //
    },
};
use std::{
    fs::{
        self,
        File, //
    },
    os::{
        fd::{
            AsFd,
            AsRawFd, //
        },
        unix::fs::{
            FileTypeExt,
            MetadataExt, //
        },
    },
    path::Path, //
};
use vfio_client::{
    Device,
    Errno,
    edu::Edu,
    pci, //
};

cases! {
    #[rows("S3")] each_device_has_a_node,
    #[rows("S3")] lowest_free_number_is_reused,
    #[rows("S5")] class_device_has_number_of_node,
    #[rows("K1")] character_device_region,
    #[rows("S8")] fdinfo_shows_sysfs_path,
    #[rows("S9")] link_is_path_of_node,
    #[rows("S3")] node_is_removed_with_device,
    #[rows("V1")] open_of_removed_node_fails,
}

fn each_device_has_a_node() -> Result<()> {
    for bdf in [EDU, NVME, SHARED] {
        let path = Device::file_of(&pci::sysfs(bdf))?;
        let node = fs::metadata(&path).with_context(|| path.display().to_string())?;
        assert!(node.file_type().is_char_device());
        assert_eq!(node.mode() & 0o7777, 0o600);
        assert_eq!((node.uid(), node.gid()), (0, 0));
        let name = file_name(&pci::sysfs(bdf))?;
        let digits = name.strip_prefix("vfio").context("the name")?;
        let number: u64 = digits.parse()?;
        assert_eq!(minor(node.rdev()), number, "{bdf}");
    }
    Ok(())
}

fn lowest_free_number_is_reused() -> Result<()> {
    let _rebind = Rebind(&[EDU, NVME]);
    let names =
        || -> Result<_> { Ok((file_name(&pci::sysfs(EDU))?, file_name(&pci::sysfs(NVME))?)) };
    let (edu, nvme) = names()?;
    let number = |name: &str| name.trim_start_matches("vfio").parse::<u32>();
    let (low, high) = if number(&edu)? < number(&nvme)? {
        (EDU, NVME)
    } else {
        (NVME, EDU)
    };
    let of = |bdf| file_name(&pci::sysfs(bdf));
    let before = (of(low)?, of(high)?);
    pci::unbind(low)?;
    pci::unbind(high)?;
    pci::bind(high, "vfio-pci")?;
    assert_eq!(of(high)?, before.0, "the lowest number is free");
    pci::bind(low, "vfio-pci")?;
    assert_eq!(of(low)?, before.1);
    for bdf in [low, high] {
        pci::unbind(bdf)?;
    }
    for bdf in [low, high] {
        pci::bind(bdf, "vfio-pci")?;
    }
    assert_eq!((of(low)?, of(high)?), before);
    Ok(())
}

fn class_device_has_number_of_node() -> Result<()> {
    let name = file_name(&pci::sysfs(EDU))?;
    let folder = pci::sysfs(EDU).join("vfio-dev").join(&name);
    let class = Path::new("/sys/class/vfio-dev").join(&name);
    assert_eq!(fs::canonicalize(&class)?, fs::canonicalize(&folder)?);
    assert_eq!(names_in(&folder)?, ["dev", "device", "subsystem", "uevent"]);
    let node = fs::metadata(Device::file_of(&pci::sysfs(EDU))?)?.rdev();
    let (major, minor) = (major(node), minor(node));
    assert_eq!(
        fs::read_to_string(folder.join("dev"))?,
        format!("{major}:{minor}\n")
    );
    assert_eq!(
        fs::read_to_string(folder.join("uevent"))?,
        format!("MAJOR={major}\nMINOR={minor}\nDEVNAME=vfio/devices/{name}\n")
    );
    let link = fs::canonicalize(format!("/sys/dev/char/{major}:{minor}"))?;
    assert_eq!(link, fs::canonicalize(&folder)?);
    Ok(())
}

fn character_device_region() -> Result<()> {
    let devices = fs::read_to_string("/proc/devices")?;
    let node = fs::metadata(Device::file_of(&pci::sysfs(EDU))?)?.rdev();
    let line = format!("{} vfio-dev", major(node));
    assert!(
        devices.lines().any(|found| found.trim() == line),
        "{devices}"
    );
    Ok(())
}

/// Returns the fdinfo of a device file.
fn fdinfo(device: &Device) -> Result<String> {
    let number = device.as_fd().as_raw_fd();
    Ok(fs::read_to_string(format!("/proc/self/fdinfo/{number}"))?)
}

fn fdinfo_shows_sysfs_path() -> Result<()> {
    let path = fs::canonicalize(pci::sysfs(EDU))?;
    let line = format!("vfio-device-syspath: {}", path.display());
    let has_line = |text: &str| text.lines().any(|found| found == line);
    let unbound = open(EDU)?;
    assert!(has_line(&fdinfo(&unbound)?), "before the bind");
    let (device, _iommufd) = bound(EDU)?;
    assert!(has_line(&fdinfo(&device)?), "after the bind");
    Ok(())
}

fn link_is_path_of_node() -> Result<()> {
    let (device, _iommufd) = bound(EDU)?;
    let number = device.as_fd().as_raw_fd();
    let path = Device::file_of(&pci::sysfs(EDU))?;
    assert_eq!(fs::read_link(format!("/proc/self/fd/{number}"))?, path);
    let edu = Edu::new(&device)?;
    assert!(edu.is_alive());
    let maps = fs::read_to_string("/proc/self/maps")?;
    assert!(maps.contains(path.to_str().context("path")?), "{maps}");
    Ok(())
}

fn node_is_removed_with_device() -> Result<()> {
    let _rebind = Rebind(&[EDU]);
    let file = Device::file_of(&pci::sysfs(EDU))?;
    let class = Path::new("/sys/class/vfio-dev").join(file_name(&pci::sysfs(EDU))?);
    let exist = || [&file, &class].map(|path| path.exists());
    assert_eq!(exist(), [true; 2]);
    pci::unbind(EDU)?;
    assert_eq!(exist(), [false; 2]);
    assert_eq!(open(EDU).errno(), Errno::ENOENT);
    pci::bind(EDU, "vfio-pci")?;
    assert_eq!(exist(), [true; 2]);
    Ok(())
}

fn open_of_removed_node_fails() -> Result<()> {
    let _rebind = Rebind(&[EDU]);
    let file = Device::file_of(&pci::sysfs(EDU))?;
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let path = nix::fcntl::open(&file, flags, Mode::empty())?;
    let node = format!("/proc/self/fd/{}", path.as_raw_fd());
    drop(File::open(&node)?);
    pci::unbind(EDU)?;
    assert_eq!(File::open(&node).errno(), Errno::ENXIO);
    pci::bind(EDU, "vfio-pci")?;
    // The device returns with the same number.
    drop(File::open(&node)?);
    Ok(())
}
