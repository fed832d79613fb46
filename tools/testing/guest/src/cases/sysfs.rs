// SPDX-License-Identifier: GPL-2.0

//! Device nodes, classes and names.

use crate::{
    env::{
        EDU,
        Setup, //
    },
    harness::cases,
    requires, //
};
use anyhow::{
    Context,
    Result, //
};
use std::{
    fs,
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
    Container,
    pci, //
};

cases! {
    #[rows("K1")] container_node,
    #[rows("K1")] proc_entries,
    #[rows("S1")] group_nodes,
    #[rows("S4")] group_class,
    #[rows("S5")] device_class,
    #[rows("S8")] fdinfo_shows_sysfs_path,
    #[rows("S9")] link_names,
    module_names,
}

fn container_node() -> Result<()> {
    let node = fs::metadata("/dev/vfio/vfio")?;
    assert!(node.file_type().is_char_device());
    assert_eq!(node.mode() & 0o7777, 0o666);
    assert_eq!(
        (
            nix::sys::stat::major(node.rdev()),
            nix::sys::stat::minor(node.rdev())
        ),
        (10, 196)
    );
    assert_eq!(
        fs::read_to_string("/sys/class/misc/vfio/dev")?.trim(),
        "10:196"
    );
    let uevent = fs::read_to_string("/sys/class/misc/vfio/uevent")?;
    assert_eq!(
        uevent,
        "MAJOR=10\nMINOR=196\nDEVNAME=vfio/vfio\nDEVMODE=0666\n"
    );
    Ok(())
}

fn proc_entries() -> Result<()> {
    let misc = fs::read_to_string("/proc/misc")?;
    assert!(misc.lines().any(|line| line.trim() == "196 vfio"));
    let devices = fs::read_to_string("/proc/devices")?;
    let names: Vec<_> = devices
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().nth(1))
        .filter(|name| name.starts_with("vfio"))
        .collect();
    let expected: &[_] = if requires::device_files() {
        &["vfio", "vfio-dev"]
    } else {
        &["vfio"]
    };
    assert_eq!(names.len(), expected.len(), "{names:?}");
    assert!(
        expected.iter().all(|name| names.contains(name)),
        "{names:?}"
    );
    Ok(())
}

fn group_nodes() -> Result<()> {
    for bdf in [EDU, crate::env::NVME, crate::env::SHARED] {
        let number = pci::group_of(bdf)?;
        let node = fs::metadata(format!("/dev/vfio/{number}"))?;
        assert!(node.file_type().is_char_device());
        assert_eq!(node.mode() & 0o7777, 0o600);
        assert_eq!((node.uid(), node.gid()), (0, 0));
    }
    assert_eq!(
        group_and_container_nodes()?,
        4,
        "three groups and the container"
    );
    Ok(())
}

/// Returns the number of nodes in /dev/vfio, without the directory of the device files.
pub(super) fn group_and_container_nodes() -> Result<usize> {
    let nodes = fs::read_dir("/dev/vfio")?.flatten();
    Ok(nodes.filter(|node| node.file_name() != "devices").count())
}

/// Returns the names in a directory except `power`, which depends on the kernel configuration.
pub(super) fn names_in(dir: &Path) -> Result<Vec<String>> {
    let mut names: Vec<_> = fs::read_dir(dir)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name != "power")
        .collect();
    names.sort();
    Ok(names)
}

fn group_class() -> Result<()> {
    let number = pci::group_of(EDU)?;
    let dir = format!("/sys/class/vfio/{number}");
    let target = fs::canonicalize(&dir)?;
    assert_eq!(
        target,
        Path::new(&format!("/sys/devices/virtual/vfio/{number}"))
    );
    let node = fs::metadata(format!("/dev/vfio/{number}"))?.rdev();
    let (major, minor) = (nix::sys::stat::major(node), nix::sys::stat::minor(node));
    assert_eq!(
        fs::read_to_string(format!("{dir}/dev"))?,
        format!("{major}:{minor}\n")
    );
    assert_eq!(
        fs::read_to_string(format!("{dir}/uevent"))?,
        format!("MAJOR={major}\nMINOR={minor}\nDEVNAME=vfio/{number}\n")
    );
    assert_eq!(names_in(Path::new(&dir))?, ["dev", "subsystem", "uevent"]);
    Ok(())
}

fn device_class() -> Result<()> {
    let dir = pci::sysfs(EDU).join("vfio-dev");
    let name = fs::read_dir(&dir)?
        .next()
        .context("the device has no directory vfio-dev")??
        .file_name();
    let class = Path::new("/sys/class/vfio-dev").join(&name);
    let device = dir.join(&name);
    assert_eq!(fs::canonicalize(&class)?, fs::canonicalize(&device)?);
    assert!(name.to_string_lossy().starts_with("vfio"));
    assert_eq!(
        fs::canonicalize(device.join("device"))?,
        fs::canonicalize(pci::sysfs(EDU))?
    );
    let uevent = fs::read_to_string(device.join("uevent"))?;
    if requires::device_files() {
        assert_eq!(names_in(&device)?, ["dev", "device", "subsystem", "uevent"]);
        let line = format!("DEVNAME=vfio/devices/{}", name.to_string_lossy());
        assert!(uevent.lines().any(|found| found == line), "{uevent}");
    } else {
        assert_eq!(names_in(&device)?, ["device", "subsystem", "uevent"]);
        assert_eq!(uevent, "");
    }
    Ok(())
}

fn fdinfo_shows_sysfs_path() -> Result<()> {
    let setup = Setup::new()?;
    let number = setup.device.as_fd().as_raw_fd();
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{number}"))?;
    let path = fs::canonicalize(pci::sysfs(EDU))?;
    let line = format!("vfio-device-syspath: {}", path.display());
    assert!(text.lines().any(|l| l == line), "{text}");
    Ok(())
}

fn link_names() -> Result<()> {
    let setup = Setup::new()?;
    let link = |fd: &dyn AsRawFd| fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let device = link(&setup.device.as_fd())?;
    assert_eq!(device, Path::new("anon_inode:[vfio-device]"));
    let container = link(&setup.container.as_fd())?;
    assert_eq!(container, Path::new("/dev/vfio/vfio"));
    let group = link(&setup.group.as_fd())?;
    let number = pci::group_of(EDU)?;
    assert_eq!(group, Path::new(&format!("/dev/vfio/{number}")));
    let edu = vfio_client::edu::Edu::new(&setup.device)?;
    assert!(edu.is_alive());
    let maps = fs::read_to_string("/proc/self/maps")?;
    assert!(maps.contains("anon_inode:[vfio-device]"), "{maps}");
    Ok(())
}

fn module_names() -> Result<()> {
    for name in ["vfio", "vfio_iommu_type1", "vfio_pci", "vfio_pci_core"] {
        assert!(Path::new("/sys/module").join(name).is_dir(), "{name}");
    }
    let version = fs::read_to_string("/sys/module/vfio/version")?;
    assert_eq!(version, "0.3\n");
    let version = fs::read_to_string("/sys/module/vfio_iommu_type1/version")?;
    assert_eq!(version, "0.2\n");
    drop(Container::open()?);
    Ok(())
}
