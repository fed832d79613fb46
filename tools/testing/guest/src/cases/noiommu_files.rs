// SPDX-License-Identifier: GPL-2.0

//! Device files of devices without an IOMMU, and groups of such devices whose container is an
//! iommufd.

use super::noiommu::{
    group,
    while_off, //
};
use crate::{
    env::{
        EDU,
        NVME,
        SHARED, //
    },
    harness::{
        Failure,
        cases, //
    },
    mdev::{
        Mdev,
        UUIDS, //
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
            MetadataExt, //
        },
    },
};
use support::{
    PAGE,
    helper::Helper,
    kmsg::Log,
    machine::pinned_pages, //
};
use vfio_client::{
    Device,
    Errno,
    Group,
    Iommu,
    Iommufd,
    MapFlags,
    Memory,
    PAGE_SIZE,
    edu::Edu,
    pci,
    raw,
    request, //
};

cases! {
    #[rows("S3", "V11")] #[requires(noiommu_device_files)] nodes,
    #[rows("V1", "V11")] #[requires(noiommu_device_files)] open_needs_cap_sys_rawio,
    #[rows("V11")] #[requires(noiommu_device_files)] bind_and_attach,
    #[rows("V11")] #[requires(noiommu_device_files)] many_opens_and_one_bind,
    #[rows("V11")] #[requires(noiommu_device_files)] dma_by_physical_addresses,
    #[rows("V11")] #[requires(noiommu_device_files)] physical_addresses_need_a_mapping,
    #[rows("V11", "G2")] #[requires(noiommu_device_files)] group_and_file_exclude_each_other,
    #[rows("V11")] #[requires(noiommu_device_files)] several_devices_in_one_ioas,
    #[rows("V11")] #[requires(noiommu_device_files)] no_pasids,
    #[rows("V11", "V10")] #[requires(noiommu_device_files)] close_detaches_and_unbinds,
    #[rows("V11")] #[requires(noiommu_device_files)] log_message_names_device,
    #[rows("V11")] #[requires(noiommu_device_files)] no_device_file_without_parameter,
    #[rows("V11")] #[requires(noiommu_device_files)] emulated_device_has_usual_name,
    #[rows("G16")] #[requires(iommufd)] group_with_iommufd,
    #[rows("G16")] #[requires(iommufd)] no_container_with_compat_ioas,
    #[rows("G16")] #[requires(iommufd)] no_device_with_compat_ioas,
    #[rows("G16")] #[requires(iommufd)] open_needs_cap_sys_rawio_through_group,
    #[rows("G16")] #[requires(iommufd)] no_emulated_group_in_same_iommufd,
    #[rows("G16")] #[requires(iommufd)] unset_container_while_device_is_open,
}

const NOIOMMU: u64 = 8;

/// Opens the file of a device.
fn open(bdf: &str) -> vfio_client::Result<Device> {
    Device::open_file(&pci::sysfs(bdf))
}

/// Opens the file of a device, and binds the device to a new iommufd.
fn bound(bdf: &str) -> Result<(Device, Iommufd)> {
    let iommufd = Iommufd::open()?;
    let device = open(bdf)?;
    device.bind(&iommufd)?;
    Ok((device, iommufd))
}

fn nodes() -> Result<()> {
    for bdf in [EDU, NVME, SHARED] {
        let path = Device::file_of(&pci::sysfs(bdf))?;
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.context("the name")?;
        let number = name.strip_prefix("noiommu-vfio").context("the prefix")?;
        let node = fs::metadata(&path)?;
        assert!(node.file_type().is_char_device());
        assert_eq!(node.mode() & 0o7777, 0o600);
        let minor = nix::sys::stat::minor(node.rdev());
        assert_eq!(number.parse::<u64>()?, minor);
        let uevent = pci::sysfs(bdf).join("vfio-dev").join(name).join("uevent");
        let line = format!("DEVNAME=vfio/devices/{name}");
        let uevent = fs::read_to_string(uevent)?;
        assert!(uevent.lines().any(|found| found == line), "{uevent}");
    }
    Ok(())
}

fn open_needs_cap_sys_rawio() -> Result<()> {
    let mut helper = Helper::spawn(&["noiommu-file"], &[])?;
    assert_eq!(helper.line()?, "with: OK");
    assert_eq!(helper.line()?, "without: EPERM");
    // A file that was opened with the capability can be bound.
    assert_eq!(helper.line()?, "bind: OK");
    helper.finish()
}

fn bind_and_attach() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let device = open(EDU)?;
    assert_eq!(device.info().errno(), Errno::EINVAL);
    let id = device.bind(&iommufd)?;
    assert_eq!(device.info()?.regions, 9);
    assert_eq!(iommufd.destroy(id).errno(), Errno::EBUSY);
    let ioas = iommufd.ioas()?;
    let table = device.attach(ioas)?;
    assert_ne!(table, ioas);
    assert_eq!(device.attach(ioas)?, table);
    let other = iommufd.ioas()?;
    device.attach(other)?;
    iommufd.destroy(ioas)?;
    assert_eq!(device.attach(12345).errno(), Errno::ENOENT);
    device.detach()?;
    device.detach()?;
    iommufd.destroy(other)?;
    Ok(())
}

fn many_opens_and_one_bind() -> Result<()> {
    let (first, iommufd) = bound(EDU)?;
    let second = open(EDU)?;
    assert_eq!(second.bind(&iommufd).errno(), Errno::EINVAL);
    assert_eq!(first.bind(&iommufd).errno(), Errno::EINVAL);
    drop(first);
    second.bind(&iommufd)?;
    Ok(())
}

fn dma_by_physical_addresses() -> Result<()> {
    let (device, iommufd) = bound(EDU)?;
    let ioas = iommufd.ioas()?;
    device.attach(ioas)?;
    let memory = Memory::anonymous(2 * PAGE_SIZE)?;
    iommufd.map(ioas, 0x10_0000, &memory, MapFlags::ReadWrite)?;
    let edu = Edu::new(&device)?;
    memory.fill(0, PAGE_SIZE, 0xa5);
    let (from, length) = iommufd.physical_address(ioas, 0x10_0000, PAGE)?;
    assert_eq!(length, PAGE);
    edu.load(from, PAGE)?;
    let (to, length) = iommufd.physical_address(ioas, 0x10_1000 + 16, 8)?;
    assert_eq!(length, 8);
    edu.store(to, 8)?;
    let bytes = memory.to_vec(PAGE_SIZE, 32);
    let expected: Vec<_> = (0..32)
        .map(|i| if (16..24).contains(&i) { 0xa5 } else { 0 })
        .collect();
    assert_eq!(bytes, expected);
    Ok(())
}

fn physical_addresses_need_a_mapping() -> Result<()> {
    let (device, iommufd) = bound(EDU)?;
    let ioas = iommufd.ioas()?;
    device.attach(ioas)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    let before = pinned_pages()?;
    let address = |iova| iommufd.physical_address(ioas, iova, 1);
    assert_eq!(address(0x10_0000).errno(), Errno::ENOENT);
    iommufd.map(ioas, 0x10_0000, &memory, MapFlags::ReadWrite)?;
    assert_eq!(pinned_pages()?, before + 1);
    address(0x10_0000)?;
    assert_eq!(address(0x10_1000).errno(), Errno::ENOENT);
    iommufd.unmap(ioas, 0x10_0000, PAGE)?;
    assert_eq!(address(0x10_0000).errno(), Errno::ENOENT);
    assert_eq!(pinned_pages()?, before);
    Ok(())
}

fn group_and_file_exclude_each_other() -> Result<()> {
    let device = open(EDU)?;
    let opened = group(EDU)?;
    assert_eq!(device.bind(&Iommufd::open()?).errno(), Errno::EBUSY);
    drop(opened);
    device.bind(&Iommufd::open()?)?;
    assert_eq!(group(EDU).errno(), Errno::EBUSY);
    drop(device);
    group(EDU)?;
    Ok(())
}

fn several_devices_in_one_ioas() -> Result<()> {
    let (first, iommufd) = bound(EDU)?;
    let second = open(NVME)?;
    second.bind(&iommufd)?;
    let ioas = iommufd.ioas()?;
    let table = first.attach(ioas)?;
    assert_eq!(second.attach(ioas)?, table);
    drop(first);
    assert_eq!(iommufd.destroy(ioas).errno(), Errno::EBUSY);
    drop(second);
    iommufd.destroy(ioas)?;
    Ok(())
}

fn no_pasids() -> Result<()> {
    let (device, iommufd) = bound(EDU)?;
    let ioas = iommufd.ioas()?;
    assert_eq!(device.attach_pasid(1, ioas).errno(), Errno::EINVAL);
    device.detach_pasid(1)?;
    iommufd.destroy(ioas)?;
    Ok(())
}

fn close_detaches_and_unbinds() -> Result<()> {
    let before = pinned_pages()?;
    for iommufd_first in [false, true] {
        let (device, iommufd) = bound(EDU)?;
        let ioas = iommufd.ioas()?;
        device.attach(ioas)?;
        let memory = Memory::anonymous(4 * PAGE_SIZE)?;
        iommufd.map(ioas, 0, &memory, MapFlags::ReadWrite)?;
        assert_eq!(pinned_pages()?, before + 4);
        if iommufd_first {
            drop(iommufd);
            device.info()?;
            drop(device);
        } else {
            drop(device);
            iommufd.unmap_all(ioas)?;
            iommufd.destroy(ioas)?;
        }
        assert_eq!(pinned_pages()?, before);
        group(EDU)?;
    }
    Ok(())
}

fn log_message_names_device() -> Result<()> {
    let mut log = Log::follow()?;
    pci::unbind(NVME)?;
    pci::bind(NVME, "vfio-pci")?;
    let parts = [NVME, "Adding kernel taint for vfio-noiommu cdev"];
    assert!(log.has(&parts), "{}", log.text());
    Ok(())
}

/// Without the parameter, a device without a group is rejected.
fn no_device_file_without_parameter() -> Result<()> {
    let outcome = while_off(|| {
        pci::unbind(NVME)?;
        let _ = pci::bind(NVME, "vfio-pci");
        assert_eq!(open(NVME).errno(), Errno::ENOENT);
        Ok(())
    });
    pci::bind(NVME, "vfio-pci")?;
    drop(open(NVME)?);
    outcome
}

fn emulated_device_has_usual_name() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let path = Device::file_of(&mdev.folder())?;
    let name = path.file_name().and_then(|name| name.to_str());
    assert!(
        name.is_some_and(|name| name.starts_with("vfio")),
        "{name:?}"
    );
    let device = Device::open_file(&mdev.folder())?;
    device.bind(&Iommufd::open()?)?;
    device.info()?;
    drop(device);
    Ok(())
}

/// Sets the container of a group.
fn set(group: &Group, iommufd: &Iommufd) -> vfio_client::Result<()> {
    group.set_container_fd(iommufd.as_fd().as_raw_fd())
}

fn group_with_iommufd() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let container = iommufd.as_container()?;
    let group = group(EDU)?;
    assert_eq!(group.status()?, 1);
    set(&group, &iommufd)?;
    assert_eq!(group.status()?, 3);
    assert_eq!(iommufd.compat_ioas().errno(), Errno::ENODEV);
    for (extension, answer) in [(1, 0), (3, 0), (8, 1), (9, 0), (10, 0)] {
        let found = container.check_extension(extension)?;
        assert_eq!(found, answer, "extension {extension}");
    }
    let set_iommu = |number| raw::value(&container, request::SET_IOMMU, number);
    assert_eq!(set_iommu(1), Err(Errno::EINVAL));
    assert_eq!(set_iommu(NOIOMMU), Ok(0));
    let device = group.device(EDU)?;
    assert!(Edu::new(&device)?.is_alive());
    let again = group.device(EDU)?;
    drop(device);
    again.info()?;
    // There is no object in the iommufd.
    for id in 1..5 {
        assert_eq!(iommufd.destroy(id).errno(), Errno::ENOENT);
    }
    assert_eq!(again.bind(&iommufd).errno(), Errno::EINVAL);
    assert_eq!(again.attach(1).errno(), Errno::ENOTTY);
    Ok(())
}

fn no_container_with_compat_ioas() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let ioas = iommufd.ioas()?;
    iommufd.set_compat_ioas(ioas)?;
    let group = group(EDU)?;
    assert_eq!(set(&group, &iommufd).errno(), Errno::EINVAL);
    assert_eq!(group.status()?, 1);
    iommufd.clear_compat_ioas()?;
    set(&group, &iommufd)?;
    group.device(EDU)?;
    Ok(())
}

fn no_device_with_compat_ioas() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let group = group(EDU)?;
    set(&group, &iommufd)?;
    let ioas = iommufd.ioas()?;
    iommufd.set_compat_ioas(ioas)?;
    assert_eq!(group.device(EDU).errno(), Errno::EPERM);
    iommufd.destroy(ioas)?;
    let device = group.device(EDU)?;
    // Only the first open of a device checks it.
    let ioas = iommufd.ioas()?;
    iommufd.set_compat_ioas(ioas)?;
    let again = group.device(EDU)?;
    drop((device, again));
    assert_eq!(group.device(EDU).errno(), Errno::EPERM);
    Ok(())
}

fn open_needs_cap_sys_rawio_through_group() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let group = group(EDU)?;
    set(&group, &iommufd)?;
    let fd = group.as_fd().try_clone_to_owned()?;
    let words = ["noiommu-iommufd", &fd.as_raw_fd().to_string()];
    let mut helper = Helper::spawn(&words, &[&fd])?;
    assert_eq!(helper.line()?, "GET_DEVICE_FD: EPERM");
    // A device that is open can be opened again by any process with the group.
    let device = group.device(EDU)?;
    helper.proceed()?;
    assert_eq!(helper.line()?, "GET_DEVICE_FD: OK");
    drop(device);
    helper.finish()
}

fn no_emulated_group_in_same_iommufd() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let (without, emulated) = (group(EDU)?, mdev.group()?);
    for (first, second) in [(&without, &emulated), (&emulated, &without)] {
        let iommufd = Iommufd::open()?;
        set(first, &iommufd)?;
        assert_eq!(set(second, &iommufd).errno(), Errno::EINVAL);
        assert_eq!((first.status()?, second.status()?), (3, 1));
        first.unset_container()?;
        // The iommufd stays what it was.
        assert_eq!(set(second, &iommufd).errno(), Errno::EINVAL);
    }
    let iommufd = Iommufd::open()?;
    set(&emulated, &iommufd)?;
    let container = iommufd.as_container()?;
    container.set_iommu(Iommu::Type1v2)?;
    drop((without, emulated));
    Ok(())
}

fn unset_container_while_device_is_open() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let group = group(EDU)?;
    set(&group, &iommufd)?;
    let device = group.device(EDU)?;
    group.unset_container()?;
    device.info()?;
    assert_eq!(group.device(EDU).errno(), Errno::EINVAL);
    assert_eq!(group.status()?, 1, "nothing owns the DMA");
    drop(device);
    set(&group, &iommufd)?;
    group.device(EDU)?;
    Ok(())
}

pub mod helper {
    use super::*;
    use crate::{
        cases::noiommu::helper::{
            drop_right,
            word, //
        },
        helper::{
            pause,
            say, //
        },
    };

    /// Opens a device file with the capability and without it.
    pub fn open_file() -> Result<()> {
        let with = open(EDU)?;
        say("with: OK");
        drop_right()?;
        say(format!("without: {}", word(open(EDU))));
        let iommufd = Iommufd::open()?;
        say(format!("bind: {}", word(with.bind(&iommufd))));
        Ok(())
    }

    /// Opens the device of a group that has an iommufd, without the capability.
    pub fn open_through(group: Group) -> Result<()> {
        drop_right()?;
        for _ in 0..2 {
            say(format!("GET_DEVICE_FD: {}", word(group.device(EDU))));
            pause();
        }
        Ok(())
    }
}
