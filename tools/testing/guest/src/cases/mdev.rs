// SPDX-License-Identifier: GPL-2.0

//! Creation, use and removal of mediated devices.

use crate::{
    env::withdrawn,
    harness::{
        Failure,
        cases, //
    },
    mdev::{
        Mdev,
        UUIDS,
        create,
        type_attribute,
        type_folder, //
    },
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
            PermissionsExt, //
        },
    },
    path::Path,
    sync::atomic::{
        AtomicBool,
        Ordering, //
    },
    thread,
    time::Duration, //
};
use vfio_client::{
    Container,
    Errno,
    Group,
    Memory,
    raw,
    request,
    uapi::VFIO_PCI_BAR0_REGION_INDEX, //
};

cases! {
    #[rows("M3")] mdev_supported_types,
    #[rows("M4")] type_attributes,
    #[rows("M5")] create_errors,
    #[rows("M5")] create_without_free_ports,
    #[rows("M5")] create_without_free_instances,
    #[rows("M6")] device_links,
    #[rows("M7")] remove_arguments,
    #[rows("M7")] remove_waits_for_last_close,
    #[rows("M7")] remove_with_open_group,
    #[rows("M12")] available_instances_count_down,
    #[rows("M13", "S7")] device_has_its_own_group,
    #[rows("M13")] group_numbers_are_reused,
    #[rows("M13")] group_has_no_dma_owner,
    #[rows("S8")] fdinfo_shows_sysfs_path,
    #[rows("G11")] get_device_fd_by_uuid,
    mdpy_framebuffer,
    mbochs_regions,
}

const UUID: &str = UUIDS[0];

fn mdev_supported_types() -> Result<()> {
    for (parent, types) in [
        ("mtty", &["mtty-1", "mtty-2"][..]),
        ("mdpy", &["mdpy-hd", "mdpy-vga", "mdpy-xga"]),
        ("mbochs", &["mbochs-large", "mbochs-medium", "mbochs-small"]),
    ] {
        let folder = Path::new("/sys/class/mdev_bus").join(parent);
        let mut names: Vec<_> = fs::read_dir(folder.join("mdev_supported_types"))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        assert_eq!(names, types);
    }
    Ok(())
}

fn type_attributes() -> Result<()> {
    assert_eq!(type_attribute("mtty-1", "device_api")?, "vfio-pci\n");
    assert_eq!(type_attribute("mtty-1", "name")?, "Single port serial\n");
    assert_eq!(type_attribute("mtty-2", "name")?, "Dual port serial\n");
    assert_eq!(type_attribute("mdpy-vga", "name")?, "mdpy-vga\n");
    assert!(!type_attribute("mdpy-vga", "description")?.is_empty());
    assert!(!type_folder("mtty-1").join("description").exists());
    let mode = |name: &str| {
        fs::metadata(type_folder("mtty-1").join(name)).map(|data| data.permissions().mode() & 0o777)
    };
    assert_eq!(mode("create")?, 0o200);
    for name in ["device_api", "name", "available_instances"] {
        assert_eq!(mode(name)?, 0o444, "{name}");
    }
    assert_eq!(
        fs::read_dir(type_folder("mtty-1").join("devices"))?.count(),
        0
    );
    Ok(())
}

fn create_errors() -> Result<()> {
    for text in [
        "7c0b5a46",
        &UUID[1..],
        &format!("{UUID}\n\n"),
        &format!("{UUID} 1"),
        &UUID.replace('-', "_"),
        &UUID.replace('7', "g"),
    ] {
        assert_eq!(create("mtty-1", text).errno(), Errno::EINVAL, "{text:?}");
    }
    let _mdev = Mdev::new("mtty-1", UUID)?;
    for name in ["mtty-1", "mtty-2", "mdpy-vga"] {
        assert_eq!(create(name, UUID).errno(), Errno::EEXIST, "{name}");
    }
    // The UUID is not case-sensitive, and may end in a newline.
    let upper = format!("{}\n", UUID.to_uppercase());
    assert_eq!(create("mtty-1", &upper).errno(), Errno::EEXIST);
    Ok(())
}

/// Returns the UUID of device number `i`.
fn numbered(i: usize) -> String {
    format!("{}{i:04x}", &UUID[..UUID.len() - 4])
}

fn create_without_free_ports() -> Result<()> {
    let devices = (0..12)
        .map(|i| Mdev::new("mtty-2", &numbered(i)))
        .collect::<vfio_client::Result<Vec<_>>>()?;
    assert_eq!(type_attribute("mtty-1", "available_instances")?, "0\n");
    for name in ["mtty-1", "mtty-2"] {
        assert_eq!(create(name, &numbered(99)).errno(), Errno::ENOSPC);
    }
    let nothing = Path::new("/sys/bus/mdev/devices").join(numbered(99));
    assert!(!nothing.exists(), "the probe failed");
    drop(devices);
    assert_eq!(type_attribute("mtty-1", "available_instances")?, "24\n");
    Ok(())
}

fn create_without_free_instances() -> Result<()> {
    let devices = (0..4)
        .map(|i| Mdev::new("mdpy-vga", &numbered(i)))
        .collect::<vfio_client::Result<Vec<_>>>()?;
    assert_eq!(type_attribute("mdpy-hd", "available_instances")?, "0\n");
    assert_eq!(create("mdpy-hd", &numbered(4)).errno(), Errno::EUSERS);
    drop(devices);
    assert_eq!(type_attribute("mdpy-hd", "available_instances")?, "4\n");
    Ok(())
}

fn device_links() -> Result<()> {
    let mdev = Mdev::new("mtty-1", &UUID.to_uppercase())?;
    let folder = Path::new("/sys/class/mdev_bus/mtty").join(UUID);
    assert!(folder.is_dir(), "the name is in lower case");
    let same = |a: &Path, b: &Path| -> Result<()> {
        assert_eq!(fs::canonicalize(a)?, fs::canonicalize(b)?);
        Ok(())
    };
    let links = [
        (folder.join("mdev_type"), type_folder("mtty-1")),
        (
            type_folder("mtty-1").join("devices").join(UUID),
            folder.clone(),
        ),
        (folder.join("subsystem"), "/sys/bus/mdev".into()),
        (folder.join("driver"), "/sys/bus/mdev/drivers/mtty".into()),
    ];
    for (link, target) in &links {
        same(link, target)?;
    }
    let mode = fs::metadata(folder.join("remove"))?.permissions().mode();
    assert_eq!(mode & 0o777, 0o200);
    let class = fs::read_dir(folder.join("vfio-dev"))?.next();
    let name = class.context("the device has no vfio-dev")??.file_name();
    same(
        &Path::new("/sys/class/vfio-dev").join(&name),
        &folder.join("vfio-dev").join(&name),
    )?;
    // The guard has the UUID as it was given, in upper case.
    fs::write(folder.join("remove"), "1")?;
    drop(mdev);
    assert!(!folder.exists());
    Ok(())
}

fn remove_arguments() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUID)?;
    let remove = mdev.folder().join("remove");
    for text in ["x", "-1", "1x", "\n"] {
        assert_eq!(fs::write(&remove, text).errno(), Errno::EINVAL, "{text:?}");
    }
    fs::write(&remove, "0")?;
    assert!(mdev.folder().exists());
    fs::write(&remove, "0x10\n")?;
    assert!(!mdev.folder().exists());
    assert_eq!(fs::write(&remove, "1").errno(), Errno::ENOENT);
    Ok(())
}

fn remove_waits_for_last_close() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUID)?;
    let number = mdev.group_number()?;
    let open = mdev.open()?;
    let removed = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        let remover = scope.spawn(|| {
            let result = mdev.remove();
            removed.store(true, Ordering::SeqCst);
            result
        });
        let begun = withdrawn(&open.group, UUID)?;
        assert!(begun, "the removal did not start in time");
        thread::sleep(Duration::from_millis(100));
        assert!(!removed.load(Ordering::SeqCst), "the device is open");
        assert_eq!(open.device.info()?.irqs, 5, "the device still works");
        assert_eq!(open.group.status()?, 3);
        assert!(!mdev.folder().join("remove").exists());
        drop(open.device);
        assert!(remover.join().is_ok_and(|result| result.is_ok()));
        Ok(())
    })?;
    assert!(!mdev.folder().exists());
    assert!(!Path::new(&format!("/dev/vfio/{number}")).exists());
    g22_group_without_devices(&open.group);
    Ok(())
}

/// Checks a group that is open but whose last device is gone.
fn g22_group_without_devices(group: &Group) {
    assert_eq!(group.status().errno(), Errno::ENODEV);
    assert_eq!(group.device(UUID).errno(), Errno::ENODEV);
    let unset = raw::none(group, request::GROUP_UNSET_CONTAINER);
    assert_eq!(unset, Err(Errno::EINVAL), "the group left the container");
    let container = Container::open().map(|container| group.set_container(&container).errno());
    assert_eq!(container.ok(), Some(Errno::ENODEV));
}

fn remove_with_open_group() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUID)?;
    let group = mdev.group()?;
    let container = Container::open()?;
    group.set_container(&container)?;
    container.set_iommu(vfio_client::Iommu::Type1v2)?;
    let memory = Memory::anonymous(vfio_client::PAGE_SIZE)?;
    container.map(0, &memory, vfio_client::MapFlags::ReadWrite)?;
    mdev.remove()?;
    g22_group_without_devices(&group);
    assert_eq!(
        container.unmap_all().errno(),
        Errno::EINVAL,
        "no IOMMU driver"
    );
    Ok(())
}

fn available_instances_count_down() -> Result<()> {
    let available = |name| type_attribute(name, "available_instances");
    assert_eq!(
        (available("mtty-1")?, available("mtty-2")?),
        ("24\n".into(), "12\n".into())
    );
    let first = Mdev::new("mtty-1", UUIDS[0])?;
    assert_eq!(
        (available("mtty-1")?, available("mtty-2")?),
        ("23\n".into(), "11\n".into())
    );
    let second = Mdev::new("mtty-2", UUIDS[1])?;
    assert_eq!(
        (available("mtty-1")?, available("mtty-2")?),
        ("21\n".into(), "10\n".into())
    );
    drop(first);
    // The group of the second device is open. This holds the group, not the device.
    let group = second.group()?;
    second.remove()?;
    assert_eq!(
        (available("mtty-1")?, available("mtty-2")?),
        ("24\n".into(), "12\n".into())
    );
    drop(group);
    Ok(())
}

fn device_has_its_own_group() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUID)?;
    let number = mdev.group_number()?;
    let folder = format!("/sys/kernel/iommu_groups/{number}");
    assert_eq!(
        fs::read_to_string(format!("{folder}/name"))?,
        "vfio-noiommu\n"
    );
    let members: Vec<_> = fs::read_dir(format!("{folder}/devices"))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    assert_eq!(members, [UUID]);
    let node = fs::metadata(format!("/dev/vfio/{number}"))?;
    assert!(node.file_type().is_char_device());
    assert_eq!(node.permissions().mode() & 0o7777, 0o600);
    assert!(Path::new(&format!("/sys/class/vfio/{number}")).exists());
    mdev.remove()?;
    for path in [
        folder,
        format!("/dev/vfio/{number}"),
        format!("/sys/class/vfio/{number}"),
    ] {
        assert!(!Path::new(&path).exists(), "{path}");
    }
    Ok(())
}

fn group_numbers_are_reused() -> Result<()> {
    let mut numbers = Vec::new();
    for _ in 0..8 {
        numbers.push(Mdev::new("mtty-1", UUID)?.group_number()?);
    }
    numbers.dedup();
    assert_eq!(numbers.len(), 1, "{numbers:?}");
    Ok(())
}

fn group_has_no_dma_owner() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUID)?;
    let group = mdev.group()?;
    assert_eq!(group.status()?, 1);
    assert_eq!(
        mdev.group().err().map(|e| e.to_string().contains("EBUSY")),
        Some(true)
    );
    let container = Container::open()?;
    group.set_container(&container)?;
    assert_eq!(group.status()?, 3);
    group.unset_container()?;
    assert_eq!(group.status()?, 1);
    Ok(())
}

fn fdinfo_shows_sysfs_path() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUID)?;
    let open = mdev.open()?;
    let number = open.device.as_fd().as_raw_fd();
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{number}"))?;
    let path = fs::canonicalize(mdev.folder())?;
    let line = format!("vfio-device-syspath: {}", path.display());
    assert!(text.lines().any(|l| l == line), "{text}");
    let link = fs::read_link(format!("/proc/self/fd/{number}"))?;
    assert_eq!(link, Path::new("anon_inode:[vfio-device]"));
    Ok(())
}

fn get_device_fd_by_uuid() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUID)?;
    let open = mdev.open()?;
    for name in [
        "",
        "mtty",
        &UUID[..35],
        &UUID.to_uppercase(),
        &format!("{UUID} "),
        &format!("{UUID} vf_token=x"),
        UUIDS[1],
    ] {
        assert_eq!(open.group.device(name).errno(), Errno::ENODEV, "{name:?}");
    }
    let again = open.group.device(UUID)?;
    drop(open.device);
    assert_eq!(again.info()?.regions, 9);
    Ok(())
}

fn mdpy_framebuffer() -> Result<()> {
    let mdev = Mdev::new("mdpy-vga", UUID)?;
    let open = mdev.open()?;
    let bar = open.device.region(VFIO_PCI_BAR0_REGION_INDEX)?;
    assert_eq!(bar.flags, 7, "read, write, mmap");
    let pixels = open.device.map_region(&bar, 0, bar.size as usize)?;
    pixels.write_u64(0x1000, 0x1122_3344_5566_7788);
    let again = open.device.map_region(&bar, 0, 0x2000)?;
    assert_eq!(again.read_u64(0x1000), 0x1122_3344_5566_7788);
    // In `read` and `write`, mdpy treats every offset as 0.
    let mut bytes = [0; 8];
    open.device.write(&bar, 0, &[0xaa])?;
    open.device.read(&bar, 0, &mut bytes)?;
    assert_eq!((bytes[0], pixels.read_u8(0)), (0xaa, 0xaa));
    // A mapping outlives the descriptors.
    drop(open);
    assert_eq!(again.read_u64(0x1000), 0x1122_3344_5566_7788);
    Ok(())
}

fn mbochs_regions() -> Result<()> {
    let mdev = Mdev::new("mbochs-small", UUID)?;
    let open = mdev.open()?;
    let info = open.device.info()?;
    assert_eq!(info.flags & 2, 2, "a PCI device");
    let bar = open.device.region(VFIO_PCI_BAR0_REGION_INDEX)?;
    assert_eq!(bar.size, 4 << 20);
    let memory = open.device.map_region(&bar, 0, 1 << 20)?;
    for page in [0, 1, 255] {
        memory.write_u32(page * 0x1000, 0x5500 + page as u32);
    }
    // Pages are mapped individually when they are first accessed.
    let again = open.device.map_region(&bar, 0, 1 << 20)?;
    assert_eq!(again.read_u32(0x1000), 0x5501);
    assert_eq!(again.read_u32(255 * 0x1000), 0x55ff);
    Ok(())
}
