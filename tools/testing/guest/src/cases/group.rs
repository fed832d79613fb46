// SPDX-License-Identifier: GPL-2.0

//! Groups: permissions, and replies to requests.

use crate::{
    env::{
        EDU,
        NVME,
        attached,
        group, //
    },
    harness::{
        Failure,
        cases, //
    },
};
use anyhow::Result;
use nix::fcntl::{
    FcntlArg,
    FdFlag,
    OFlag,
    fcntl, //
};
use std::{
    fs::File,
    os::fd::{
        AsFd,
        AsRawFd, //
    },
};
use support::machine::locked_pages;
use vfio_client::{
    Bytes,
    Container,
    Errno,
    Group,
    Interrupt,
    Iommu,
    MapFlags,
    Memory,
    PAGE_SIZE,
    raw,
    request, //
};

cases! {
    #[rows("G1")] second_open_is_busy,
    #[rows("G1")] dup_shares_the_open_file,
    #[rows("G5")] get_status_flags,
    #[rows("G5")] get_status_argsz,
    #[rows("G6")] set_container_errors,
    #[rows("G6")] set_container_again,
    #[rows("G10")] unset_container_errors,
    #[rows("G11")] get_device_fd_names,
    #[rows("G11")] get_device_fd_order_of_errors,
    #[rows("G12")] device_fd_flags,
    #[rows("G12")] several_device_fds,
    #[rows("G13")] device_keeps_group_in_use,
    #[rows("G14")] unknown_requests,
    no_read_write_mmap,
}

fn second_open_is_busy() -> Result<()> {
    let number = vfio_client::pci::group_of(EDU)?;
    let first = Group::open(number)?;
    assert_eq!(Group::open(number).errno(), Errno::EBUSY);
    assert_eq!(first.status()?, 1);
    let path = format!("/dev/vfio/{number}");
    assert_eq!(
        File::open(&path).errno(),
        Errno::EBUSY,
        "an open for reading"
    );
    drop(first);
    // A group opened without write permission can be used in full.
    let file = File::open(&path)?;
    assert_eq!(Group::from_fd(file.into()).status()?, 1);
    Ok(())
}

fn dup_shares_the_open_file() -> Result<()> {
    let number = vfio_client::pci::group_of(EDU)?;
    let first = Group::open(number)?;
    let second = first.try_clone()?;
    drop(first);
    assert_eq!(second.status()?, 1);
    assert_eq!(Group::open(number).errno(), Errno::EBUSY);
    drop(second);
    Group::open(number)?;
    Ok(())
}

fn get_status_flags() -> Result<()> {
    let group = group(EDU)?;
    assert_eq!(group.status()?, 1);
    let container = Container::open()?;
    group.set_container(&container)?;
    assert_eq!(group.status()?, 3);
    container.set_iommu(Iommu::Type1v2)?;
    let device = group.device(EDU)?;
    assert_eq!(group.status()?, 3);
    drop(device);
    group.unset_container()?;
    assert_eq!(group.status()?, 1);
    Ok(())
}

fn get_status_argsz() -> Result<()> {
    let group = group(EDU)?;
    let status = |bytes: &mut Bytes| raw::bytes(&group, request::GROUP_GET_STATUS, bytes);
    for short in [0, 4, 7] {
        let mut bytes = Bytes::new().u32(short).u32(0xaaaa_aaaa);
        assert_eq!(status(&mut bytes), Err(Errno::EINVAL), "argsz {short}");
        assert_eq!(bytes, Bytes::new().u32(short).u32(0xaaaa_aaaa));
    }
    // A larger `argsz` is accepted. No more than eight bytes are written, and `argsz` is
    // unchanged.
    for long in [8, 9, 4096, u32::MAX] {
        let mut bytes = Bytes::new().u32(long).u32(0xaaaa_aaaa).fill(0xaa, 24);
        assert_eq!(status(&mut bytes), Ok(0));
        assert_eq!(bytes, Bytes::new().u32(long).u32(1).fill(0xaa, 24));
    }
    // The structure extends into unreadable memory.
    let mut bytes = Bytes::new().u32(8);
    assert_eq!(status(&mut bytes), Err(Errno::EFAULT));
    Ok(())
}

fn set_container_errors() -> Result<()> {
    let group = group(EDU)?;
    for address in [0, 1, u64::MAX] {
        assert_eq!(
            raw::value(&group, request::GROUP_SET_CONTAINER, address),
            Err(Errno::EFAULT)
        );
    }
    for number in [-1, i32::MIN, i32::MAX, 9999] {
        assert_eq!(group.set_container_fd(number).errno(), Errno::EBADF);
    }
    let null = File::open("/dev/null")?;
    let eventfd = Interrupt::new()?;
    let (other_container, other) = attached(NVME, Iommu::Type1v2)?;
    let device = other.device(NVME)?;
    let path = File::from(nix::fcntl::open(
        "/dev/vfio/vfio",
        OFlag::O_PATH | OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    )?);
    for (what, fd, errno) in [
        ("/dev/null", null.as_fd(), Errno::EBADFD),
        ("an eventfd", eventfd.as_fd(), Errno::EBADFD),
        ("another group", other.as_fd(), Errno::EBADFD),
        ("itself", group.as_fd(), Errno::EBADFD),
        ("a device", device.as_fd(), Errno::EBADFD),
        ("a path to a container", path.as_fd(), Errno::EBADF),
    ] {
        assert_eq!(
            group.set_container_fd(fd.as_raw_fd()).errno(),
            errno,
            "{what}"
        );
        assert_eq!(group.status()?, 1, "{what}");
    }
    group.set_container(&other_container)?;
    assert_eq!(group.status()?, 3);
    Ok(())
}

fn set_container_again() -> Result<()> {
    let (container, group) = attached(EDU, Iommu::Type1v2)?;
    let other = Container::open()?;
    let null = File::open("/dev/null")?;
    // Bad addresses and descriptors are detected first.
    assert_eq!(
        raw::value(&group, request::GROUP_SET_CONTAINER, 1),
        Err(Errno::EFAULT)
    );
    assert_eq!(group.set_container_fd(-1).errno(), Errno::EBADF);
    for fd in [container.as_fd(), other.as_fd(), null.as_fd()] {
        let answer = group.set_container_fd(fd.as_raw_fd());
        assert_eq!(answer.errno(), Errno::EINVAL);
    }
    assert_eq!(group.status()?, 3);
    assert!(container.info().is_ok());
    Ok(())
}

fn unset_container_errors() -> Result<()> {
    let group = group(EDU)?;
    assert_eq!(group.unset_container().errno(), Errno::EINVAL);
    let container = group.attach(Iommu::Type1v2)?;
    let memory = Memory::anonymous(8 * PAGE_SIZE)?;
    container.map(0, &memory, MapFlags::ReadWrite)?;
    assert_eq!(locked_pages(), 8);
    let device = group.device(EDU)?;
    assert_eq!(group.unset_container().errno(), Errno::EBUSY);
    assert_eq!((group.status()?, locked_pages()), (3, 8));
    drop(device);
    group.unset_container()?;
    assert_eq!((group.status()?, locked_pages()), (1, 0));
    assert_eq!(group.unset_container().errno(), Errno::EINVAL);
    Ok(())
}

fn get_device_fd_names() -> Result<()> {
    let (_container, group) = attached(EDU, Iommu::Type1v2)?;
    for (name, errno) in [
        ("", Errno::ENODEV),
        ("nonsense", Errno::ENODEV),
        ("0000:00:03", Errno::ENODEV),
        ("0000:00:03.0x", Errno::ENODEV),
        ("0000:00:03.00", Errno::ENODEV),
        (NVME, Errno::ENODEV),
        ("0000:00:03.0 nonsense", Errno::EINVAL),
        ("0000:00:03.0 vf_token=short", Errno::EINVAL),
        (
            "0000:00:03.0 vf_token=00000000-0000-0000-0000-00000000000z",
            Errno::EINVAL,
        ),
        // The name is well-formed, but the device is neither a PF nor a VF.
        (
            "0000:00:03.0 vf_token=00112233-4455-6677-8899-aabbccddeeff",
            Errno::EINVAL,
        ),
    ] {
        assert_eq!(group.device(name).errno(), errno, "{name:?}");
    }
    let get = |bytes: &mut Bytes| raw::bytes(&group, request::GROUP_GET_DEVICE_FD, bytes);
    let mut endless = Bytes::new().fill(b'0', 2 * PAGE_SIZE);
    assert_eq!(get(&mut endless), Err(Errno::EINVAL));
    let mut longest = Bytes::new().fill(b'0', PAGE_SIZE - 1).fill(0, 1);
    assert_eq!(get(&mut longest), Err(Errno::ENODEV));
    // The string is not terminated before the readable memory ends.
    let mut cut = Bytes::new().raw(EDU.as_bytes());
    assert_eq!(get(&mut cut), Err(Errno::EFAULT));
    // Spaces after the name are allowed.
    group.device(&format!("{EDU} "))?.info()?;
    group.device(EDU)?.info()?;
    Ok(())
}

fn get_device_fd_order_of_errors() -> Result<()> {
    let group = group(EDU)?;
    // The name is looked up first.
    assert_eq!(group.device("nonsense").errno(), Errno::ENODEV);
    assert_eq!(group.device(EDU).errno(), Errno::EINVAL, "no container");
    let container = Container::open()?;
    group.set_container(&container)?;
    assert_eq!(group.device("nonsense").errno(), Errno::ENODEV);
    assert_eq!(group.device(EDU).errno(), Errno::EINVAL, "no IOMMU driver");
    container.set_iommu(Iommu::Type1v2)?;
    group.device(EDU)?;
    Ok(())
}

fn device_fd_flags() -> Result<()> {
    let (_container, group) = attached(EDU, Iommu::Type1v2)?;
    let device = group.device(EDU)?;
    let flags = FdFlag::from_bits_retain(fcntl(device.as_fd(), FcntlArg::F_GETFD)?);
    assert!(flags.contains(FdFlag::FD_CLOEXEC));
    let mode = OFlag::from_bits_retain(fcntl(device.as_fd(), FcntlArg::F_GETFL)?);
    assert_eq!(mode & OFlag::O_ACCMODE, OFlag::O_RDWR);
    Ok(())
}

fn several_device_fds() -> Result<()> {
    let (_container, group) = attached(EDU, Iommu::Type1v2)?;
    let (first, second) = (group.device(EDU)?, group.device(EDU)?);
    assert_ne!(first.as_fd().as_raw_fd(), second.as_fd().as_raw_fd());
    drop(first);
    second.info()?;
    assert_eq!(group.unset_container().errno(), Errno::EBUSY);
    let third = group.device(EDU)?;
    drop(second);
    third.info()?;
    Ok(())
}

fn device_keeps_group_in_use() -> Result<()> {
    let number = vfio_client::pci::group_of(EDU)?;
    let (container, group) = attached(EDU, Iommu::Type1v2)?;
    let device = group.device(EDU)?;
    drop(group);
    device.info()?;
    assert!(container.info().is_ok());
    assert_eq!(Group::open(number).errno(), Errno::EBUSY);
    drop(device);
    let group = Group::open(number)?;
    assert_eq!(group.status()?, 1);
    assert_eq!(container.info().errno(), Errno::EINVAL);
    Ok(())
}

fn unknown_requests() -> Result<()> {
    let group = group(EDU)?;
    for n in [0, 1, 2, 7, 8, 9, 10, 11, 12, 13, 14, 17, 18, 150] {
        let nr = request::number(n);
        assert_eq!(raw::none(&group, nr), Err(Errno::ENOTTY), "request {n}");
    }
    assert_eq!(raw::none(&group, 0x5401), Err(Errno::ENOTTY));
    let mut status = Bytes::new().u32(8).u32(7);
    assert_eq!(
        raw::bytes(&group, request::GROUP_GET_STATUS | (8 << 16), &mut status),
        Err(Errno::ENOTTY)
    );
    Ok(())
}

fn no_read_write_mmap() -> Result<()> {
    let group = group(EDU)?;
    let mut byte = [0x5a];
    assert_eq!(raw::pread(&group, &mut byte, 0), Err(Errno::EINVAL));
    assert_eq!(raw::pwrite(&group, &byte, 0), Err(Errno::EINVAL));
    assert_eq!(
        Memory::from_file(&group, 0, PAGE_SIZE, true).errno(),
        Errno::ENODEV
    );
    Ok(())
}
