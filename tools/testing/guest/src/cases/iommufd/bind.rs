// SPDX-License-Identifier: GPL-2.0

//! Binding a device file to an iommufd.

use super::{
    Attached,
    CLOSED,
    WithoutDriver,
    bound,
    has,
    is_free,
    open, //
};
use crate::{
    env::{
        EDU,
        NVME,
        SHARED,
        SIBLING,
        Setup,
        group, //
    },
    harness::{
        Failure,
        cases, //
    },
    slow_sysfs::{
        self,
        REGISTRATION, //
    },
};
use anyhow::Result;
use std::{
    fs::File,
    os::fd::{
        AsFd,
        AsRawFd, //
    },
};
use support::requests::{
    AttachPt,
    BindIommufd,
    DetachPt, //
};
use vfio_client::{
    Container,
    Device,
    Errno,
    Iommufd,
    Memory,
    PAGE_SIZE,
    pci,
    raw,
    request, //
};

cases! {
    #[rows("V1", "V4")] many_opens_and_one_bind,
    #[rows("V3")] bound_file_cannot_be_bound_again,
    #[rows("D1", "V9")] unbound_file_answers_einval,
    #[rows("D1", "V9")] failed_bind_gives_no_access,
    #[rows("V2")] argsz,
    #[rows("V2")] bytes_after_structure_must_be_zero,
    #[rows("V2")] unknown_flags_and_negative_descriptors,
    #[rows("V2")] #[requires(containers)] group_device_cannot_be_bound,
    #[rows("V2")] structures_that_cannot_be_read,
    #[rows("V3")] #[requires(vfio_containers)] files_that_are_no_iommufd,
    #[rows("V2", "V3", "V4")] #[requires(groups)] order_of_errors,
    #[rows("V3")] #[requires(groups)] bind_needs_dma_ownership,
    #[rows("V3")] bound_device_owns_dma_of_group,
    #[rows("V3")] devices_of_a_group_share_an_iommufd,
    #[rows("V5")] ids_are_objects_of_the_iommufd,
    #[rows("V5")] id_that_cannot_be_written_undoes_the_bind,
    several_devices_in_one_iommufd,
    #[rows("V3")] #[requires(groups)] bind_does_not_wait_for_sysfs,
}

/// Returns a request to bind a device to an iommufd.
fn request_for(iommufd: &Iommufd) -> BindIommufd {
    BindIommufd {
        iommufd: iommufd.as_fd().as_raw_fd(),
        ..BindIommufd::default()
    }
}

fn many_opens_and_one_bind() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let first = open(EDU)?;
    let second = open(EDU)?;
    let third = open(EDU)?;
    second.bind(&iommufd)?;
    second.info()?;
    for other in [&first, &third] {
        assert_eq!(other.bind(&iommufd).errno(), Errno::EINVAL);
        assert_eq!(other.info().errno(), Errno::EINVAL);
    }
    let elsewhere = Iommufd::open()?;
    assert_eq!(first.bind(&elsewhere).errno(), Errno::EINVAL);
    drop(open(EDU)?);
    second.info()?;
    drop(second);
    third.bind(&elsewhere)?;
    third.info()?;
    assert_eq!(first.bind(&iommufd).errno(), Errno::EINVAL);
    Ok(())
}

fn bound_file_cannot_be_bound_again() -> Result<()> {
    let (device, iommufd) = bound(EDU)?;
    assert_eq!(device.bind(&iommufd).errno(), Errno::EINVAL);
    assert_eq!(device.bind(&Iommufd::open()?).errno(), Errno::EINVAL);
    device.info()?;
    drop(device);
    is_free(EDU)
}

/// Checks that a file has no access to its device.
#[track_caller]
fn has_no_access(device: &Device) -> Result<()> {
    let numbers = (request::GET_API_VERSION..=request::GET_API_VERSION + 30)
        .chain([request::UNKNOWN])
        .filter(|nr| *nr != request::DEVICE_BIND_IOMMUFD);
    for nr in numbers {
        assert_eq!(raw::none(device, nr), Err(Errno::EINVAL), "request {nr:#x}");
    }
    assert_eq!(AttachPt::to(1).send(device), Err(Errno::EINVAL));
    assert_eq!(DetachPt::default().send(device), Err(Errno::EINVAL));
    let mut word = [0; 4];
    assert_eq!(raw::pread(device, &mut word, 0), Err(Errno::EINVAL));
    assert_eq!(raw::pwrite(device, &word, 0), Err(Errno::EINVAL));
    let mapped = Memory::from_file(device, 0, PAGE_SIZE, true);
    assert_eq!(mapped.errno(), Errno::EINVAL);
    Ok(())
}

fn unbound_file_answers_einval() -> Result<()> {
    let device = open(EDU)?;
    has_no_access(&device)?;
    // Another file of the same device is bound, which changes nothing.
    let (_bound, _iommufd) = bound(EDU)?;
    has_no_access(&device)
}

fn failed_bind_gives_no_access() -> Result<()> {
    let device = open(EDU)?;
    let null = File::open("/dev/null")?;
    for fd in [-1, CLOSED, null.as_raw_fd()] {
        let bind = BindIommufd {
            iommufd: fd,
            ..BindIommufd::default()
        };
        assert!(bind.send(&device).is_err());
        has_no_access(&device)?;
    }
    let iommufd = Iommufd::open()?;
    device.bind(&iommufd)?;
    device.info()?;
    Ok(())
}

fn argsz() -> Result<()> {
    let iommufd = Iommufd::open()?;
    for argsz in [0, 4, 8, 12, 15] {
        let bind = BindIommufd {
            argsz,
            ..request_for(&iommufd)
        };
        assert_eq!(bind.send(open(EDU)?), Err(Errno::EINVAL), "argsz {argsz}");
    }
    for argsz in [
        BindIommufd::SIZE_WITHOUT_TOKEN,
        17,
        20,
        23,
        BindIommufd::SIZE,
    ] {
        let bind = BindIommufd {
            argsz,
            ..request_for(&iommufd)
        };
        let device = open(EDU)?;
        assert!(bind.send(&device).is_ok(), "argsz {argsz}");
        device.info()?;
    }
    Ok(())
}

fn bytes_after_structure_must_be_zero() -> Result<()> {
    let iommufd = Iommufd::open()?;
    for length in [1, 8, 100, 3000] {
        let bind = BindIommufd {
            argsz: BindIommufd::SIZE + length as u32,
            ..request_for(&iommufd)
        };
        let mut tail = vec![0; length];
        assert!(
            bind.send_before(open(EDU)?, &tail).is_ok(),
            "{length} bytes"
        );
        for at in [0, length / 2, length - 1] {
            tail[at] = 1;
            let answer = bind.send_before(open(EDU)?, &tail);
            assert_eq!(answer, Err(Errno::E2BIG), "byte {at} of {length}");
            tail[at] = 0;
        }
    }
    // A byte after `argsz` is not read.
    let answer = request_for(&iommufd).send_before(open(EDU)?, &[1]);
    assert!(answer.is_ok());
    is_free(EDU)
}

fn unknown_flags_and_negative_descriptors() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let device = open(EDU)?;
    for flags in [1 << 1, 1 << 31, u32::MAX, u32::MAX & !BindIommufd::TOKEN] {
        let bind = BindIommufd {
            flags,
            ..request_for(&iommufd)
        };
        assert_eq!(bind.send(&device), Err(Errno::EINVAL), "flags {flags:#x}");
    }
    for fd in [-1, -100, i32::MIN] {
        let bind = BindIommufd {
            iommufd: fd,
            ..BindIommufd::default()
        };
        assert_eq!(bind.send(&device), Err(Errno::EINVAL), "descriptor {fd}");
    }
    is_free(EDU)
}

fn group_device_cannot_be_bound() -> Result<()> {
    let setup = Setup::new()?;
    let iommufd = Iommufd::open()?;
    assert_eq!(setup.device.bind(&iommufd).errno(), Errno::EINVAL);
    let bind = BindIommufd {
        argsz: BindIommufd::SIZE + 4,
        ..request_for(&iommufd)
    };
    let answer = bind.send_before(&setup.device, &[0, 0, 0, 1]);
    assert_eq!(answer, Err(Errno::E2BIG), "the structure comes first");
    setup.device.info()?;
    Ok(())
}

fn structures_that_cannot_be_read() -> Result<()> {
    let nr = request::DEVICE_BIND_IOMMUFD;
    let iommufd = Iommufd::open()?;
    let device = open(EDU)?;
    for address in [0, 1, 4096, 1 << 63, u64::MAX] {
        assert_eq!(raw::value(&device, nr, address), Err(Errno::EFAULT));
    }
    // All but the last bytes of the structure can be read.
    let bytes = request_for(&iommufd).bytes();
    let mut memory = Memory::anonymous(PAGE_SIZE)?;
    for missing in [1, 8, 9, 20] {
        let offset = PAGE_SIZE - (bytes.len() - missing);
        memory.write(offset, &bytes.as_ref()[..bytes.len() - missing]);
        let answer = raw::at(&device, nr, &mut memory, offset);
        assert_eq!(answer, Err(Errno::EFAULT), "without {missing} bytes");
    }
    // Bytes after `argsz` need not exist.
    let short = BindIommufd {
        argsz: BindIommufd::SIZE_WITHOUT_TOKEN,
        ..request_for(&iommufd)
    };
    let offset = PAGE_SIZE - 16;
    memory.write(offset, &short.bytes().as_ref()[..16]);
    assert_eq!(raw::at(&device, nr, &mut memory, offset), Ok(0));
    device.info()?;
    Ok(())
}

fn files_that_are_no_iommufd() -> Result<()> {
    let device = open(EDU)?;
    let null = File::open("/dev/null")?;
    let container = Container::open()?;
    let other = open(NVME)?;
    let group = group(NVME)?;
    let files: [&dyn AsFd; 5] = [&null, &container, &other, &group, &device];
    for (i, file) in files.into_iter().enumerate() {
        let bind = BindIommufd {
            iommufd: file.as_fd().as_raw_fd(),
            ..BindIommufd::default()
        };
        assert_eq!(bind.send(&device), Err(Errno::EBADFD), "file {i}");
    }
    let bind = BindIommufd {
        iommufd: CLOSED,
        ..BindIommufd::default()
    };
    assert_eq!(bind.send(&device), Err(Errno::EBADF));
    drop(group);
    is_free(EDU)
}

/// Each request is wrong in several ways, and the first error is reported.
fn order_of_errors() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let null = File::open("/dev/null")?;
    let null = null.as_raw_fd();
    let long = BindIommufd {
        argsz: BindIommufd::SIZE + 1,
        flags: u32::MAX,
        iommufd: -1,
        token: 1,
    };
    let unknown_flags = BindIommufd {
        flags: 2,
        iommufd: CLOSED,
        ..BindIommufd::default()
    };
    let bad_token = BindIommufd {
        flags: BindIommufd::TOKEN,
        iommufd: CLOSED,
        token: 1,
        ..BindIommufd::default()
    };
    let closed = BindIommufd {
        iommufd: CLOSED,
        ..BindIommufd::default()
    };
    let other_file = BindIommufd {
        iommufd: null,
        ..BindIommufd::default()
    };
    {
        let device = open(EDU)?;
        assert_eq!(long.send_before(&device, &[1]), Err(Errno::E2BIG));
        let opened = group(EDU)?;
        assert_eq!(unknown_flags.send(&device), Err(Errno::EINVAL));
        assert_eq!(bad_token.send(&device), Err(Errno::EBUSY), "group first");
        assert_eq!(closed.send(&device), Err(Errno::EBUSY), "group first");
        drop(opened);
        assert_eq!(bad_token.send(&device), Err(Errno::EFAULT), "then token");
        assert_eq!(closed.send(&device), Err(Errno::EBADF));
    }
    let (device, _elsewhere) = bound(EDU)?;
    assert_eq!(bad_token.send(&device), Err(Errno::EINVAL), "bound first");
    assert_eq!(closed.send(&device), Err(Errno::EINVAL), "bound first");
    let other = open(EDU)?;
    assert_eq!(bad_token.send(&other), Err(Errno::EFAULT), "token first");
    assert_eq!(closed.send(&other), Err(Errno::EBADF), "iommufd first");
    assert_eq!(other_file.send(&other), Err(Errno::EBADFD));
    assert_eq!(request_for(&iommufd).send(&other), Err(Errno::EINVAL));
    drop(device);
    // The driver of another device has the group of this one.
    let shared = open(SHARED)?;
    assert_eq!(closed.send(&shared), Err(Errno::EBADF), "before ownership");
    assert_eq!(request_for(&iommufd).send(&shared), Err(Errno::EPERM));
    Ok(())
}

fn bind_needs_dma_ownership() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let device = open(SHARED)?;
    assert_eq!(device.bind(&iommufd).errno(), Errno::EPERM);
    assert_eq!(device.info().errno(), Errno::EINVAL);
    assert_eq!(group(SHARED)?.status()?, 0, "the group can be opened");
    let sibling = WithoutDriver::new()?;
    device.bind(&iommufd)?;
    device.info()?;
    drop(device);
    sibling.bind_driver()?;
    Ok(())
}

fn bound_device_owns_dma_of_group() -> Result<()> {
    let sibling = WithoutDriver::new()?;
    let (device, iommufd) = bound(SHARED)?;
    assert_eq!(sibling.bind_driver().errno(), Errno::EBUSY);
    let ioas = iommufd.ioas()?;
    device.attach(ioas)?;
    assert_eq!(sibling.bind_driver().errno(), Errno::EBUSY);
    device.detach()?;
    assert_eq!(sibling.bind_driver().errno(), Errno::EBUSY, "still bound");
    drop(iommufd);
    assert_eq!(sibling.bind_driver().errno(), Errno::EBUSY, "still bound");
    drop(device);
    sibling.bind_driver()?;
    Ok(())
}

fn devices_of_a_group_share_an_iommufd() -> Result<()> {
    let sibling = WithoutDriver::new()?;
    sibling.bind_vfio()?;
    let (first, iommufd) = bound(SHARED)?;
    let second = open(SIBLING)?;
    let elsewhere = Iommufd::open()?;
    assert_eq!(second.bind(&elsewhere).errno(), Errno::EPERM);
    second.bind(&iommufd)?;
    second.info()?;
    drop(first);
    let first = open(SHARED)?;
    assert_eq!(first.bind(&elsewhere).errno(), Errno::EPERM);
    drop(second);
    first.bind(&elsewhere)?;
    Ok(())
}

fn ids_are_objects_of_the_iommufd() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let (first, second) = (open(EDU)?, open(NVME)?);
    let ids = (first.bind(&iommufd)?, second.bind(&iommufd)?);
    assert_ne!(ids.0, ids.1);
    assert!(ids.0 != 0 && ids.1 != 0);
    assert!(has(&iommufd, ids.0)? && has(&iommufd, ids.1)?);
    let ioas = iommufd.ioas()?;
    let table = iommufd.hwpt(ids.0, ioas)?;
    iommufd.destroy(table)?;
    drop(first);
    assert!(!has(&iommufd, ids.0)? && has(&iommufd, ids.1)?);
    assert_eq!(iommufd.hwpt(ids.0, ioas).errno(), Errno::ENOENT);
    Ok(())
}

fn id_that_cannot_be_written_undoes_the_bind() -> Result<()> {
    let nr = request::DEVICE_BIND_IOMMUFD;
    let iommufd = Iommufd::open()?;
    let before = iommufd.ioas()?;
    let device = open(EDU)?;
    let mut memory = Memory::anonymous(PAGE_SIZE)?;
    memory.write(0, request_for(&iommufd).bytes().as_ref());
    memory.protect(true, false)?;
    for _ in 0..3 {
        assert_eq!(raw::at(&device, nr, &mut memory, 0), Err(Errno::EFAULT));
        has_no_access(&device)?;
        is_free(EDU)?;
    }
    for id in before + 1..before + 10 {
        assert!(!has(&iommufd, id)?, "object {id} was left behind");
    }
    // The same file can be bound.
    device.bind(&iommufd)?;
    device.info()?;
    Ok(())
}

fn several_devices_in_one_iommufd() -> Result<()> {
    let first = Attached::new()?;
    let second = open(NVME)?;
    second.bind(&first.iommufd)?;
    second.attach(first.ioas)?;
    first.device.info()?;
    second.info()?;
    drop(first.device);
    second.info()?;
    is_free(EDU)
}

fn bind_does_not_wait_for_sysfs() -> Result<()> {
    let iommufd = Iommufd::open()?;
    // The path is found in sysfs.
    let path = Device::file_of(&pci::sysfs(EDU))?;
    let open = || File::options().read(true).write(true).open(&path);
    slow_sysfs::while_mdev_comes_and_goes(&REGISTRATION, || {
        Device::from_fd(open()?.into()).bind(&iommufd)?;
        Ok(())
    })
}
