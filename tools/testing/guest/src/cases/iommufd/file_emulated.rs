// SPDX-License-Identifier: GPL-2.0

//! Device files of emulated devices: the kernel's samples of mediated devices.

use super::{
    file_name,
    has, //
};
use crate::{
    dma_logging,
    env::EDU,
    harness::{
        Failure,
        cases, //
    },
    mdev::{
        Mdev,
        UUIDS, //
    },
    migration,
    requires, //
};
use anyhow::{
    Result,
    anyhow, //
};
use std::{
    fs,
    os::fd::{
        AsFd,
        AsRawFd, //
    },
    path::Path,
    thread,
    time::Duration, //
};
use support::{
    PAGE,
    requests::{
        BindIommufd,
        SetIrqs, //
    },
};
use vfio_client::{
    Bytes,
    Device,
    Errno,
    Group,
    Interrupt,
    Iommufd,
    MapFlags,
    Memory,
    PAGE_SIZE,
    mdev::store,
    raw,
    request,
    structures::{
        LoggingReport,
        Type1Info, //
    },
    wait::until, //
};

cases! {
    #[rows("S3", "S5")] device_file_of_mdev,
    #[rows("V3", "V5")] bind_and_close,
    #[rows("V3")] token_is_refused,
    #[rows("G2", "V3")] #[requires(containers)] group_and_file_exclude_each_other,
    #[rows("V6")] attach_returns_ioas,
    #[rows("V6")] attach_to_page_table_fails,
    #[rows("V6", "V7")] replace_and_detach,
    #[rows("V6", "V7")] no_pasids,
    #[rows("V6")] page_table_id_that_cannot_be_written,
    #[rows("D4", "D23")] interrupts,
    #[rows("D20", "D21")] display_can_be_mapped,
    #[rows("D10")] migration_through_device_file,
    #[rows("D13", "D14", "D15")] dma_logging_on_device_file,
    #[rows("M7")] removal_waits_for_device_file,
    #[rows("G15")] #[requires(groups)] group_with_iommufd,
    #[rows("G15")] #[requires(groups)] emulated_and_physical_group_in_one_iommufd,
    #[rows("V10")] close_in_every_order,
}

/// A type of each sample driver.
const TYPES: [&str; 3] = ["mtty-1", "mdpy-vga", "mbochs-small"];

/// Creates a device.
fn mdev(name: &str) -> Result<Mdev> {
    Ok(Mdev::new(name, UUIDS[0])?)
}

/// Opens the file of a device.
fn open(mdev: &Mdev) -> vfio_client::Result<Device> {
    Device::open_file(&mdev.folder())
}

/// Opens the file of a device, and binds it to a new iommufd.
fn bound(mdev: &Mdev) -> Result<(Device, Iommufd)> {
    let iommufd = Iommufd::open()?;
    let device = open(mdev)?;
    device.bind(&iommufd)?;
    Ok((device, iommufd))
}

fn device_file_of_mdev() -> Result<()> {
    for name in TYPES {
        let mdev = mdev(name)?;
        let file = Device::file_of(&mdev.folder())?;
        assert!(file.exists(), "{name}");
        let class = Path::new("/sys/class/vfio-dev").join(file_name(&mdev.folder())?);
        assert_eq!(
            fs::canonicalize(class.join("device"))?,
            fs::canonicalize(mdev.folder())?
        );
        let device = open(&mdev)?;
        let number = device.as_fd().as_raw_fd();
        let fdinfo = fs::read_to_string(format!("/proc/self/fdinfo/{number}"))?;
        assert!(fdinfo.contains(mdev.uuid()), "{fdinfo}");
        drop(device);
        drop(mdev);
        assert!(!file.exists(), "{name}");
    }
    Ok(())
}

fn bind_and_close() -> Result<()> {
    for name in TYPES {
        let mdev = mdev(name)?;
        let iommufd = Iommufd::open()?;
        let device = open(&mdev)?;
        assert_eq!(device.info().errno(), Errno::EINVAL);
        let id = device.bind(&iommufd)?;
        assert!(device.info()?.regions > 0);
        assert!(has(&iommufd, id)?, "{name}");
        let second = open(&mdev)?;
        assert_eq!(second.bind(&iommufd).errno(), Errno::EINVAL);
        drop(device);
        assert!(!has(&iommufd, id)?, "{name}");
        second.bind(&iommufd)?;
        second.attach(iommufd.ioas()?)?;
        drop(second);
    }
    Ok(())
}

fn token_is_refused() -> Result<()> {
    let mdev = mdev("mtty-1")?;
    let iommufd = Iommufd::open()?;
    let device = open(&mdev)?;
    let bind = device.bind_with_token(&iommufd, &[0; 16]);
    assert_eq!(bind.errno(), Errno::EINVAL);
    // The driver has no tokens, so the address is not read.
    let bad = BindIommufd {
        flags: BindIommufd::TOKEN,
        iommufd: super::CLOSED,
        token: 1,
        ..BindIommufd::default()
    };
    assert_eq!(bad.send(&device), Err(Errno::EINVAL));
    device.bind(&iommufd)?;
    Ok(())
}

fn group_and_file_exclude_each_other() -> Result<()> {
    let mdev = mdev("mtty-1")?;
    let number = mdev.group_number()?;
    let device = open(&mdev)?;
    let group = mdev.group()?;
    assert_eq!(device.bind(&Iommufd::open()?).errno(), Errno::EBUSY);
    drop(group);
    device.bind(&Iommufd::open()?)?;
    assert_eq!(Group::open(number).errno(), Errno::EBUSY);
    drop(device);
    let opened = mdev.open()?;
    opened.device.info()?;
    Ok(())
}

fn attach_returns_ioas() -> Result<()> {
    for name in TYPES {
        let mdev = mdev(name)?;
        let (device, iommufd) = bound(&mdev)?;
        let ioas = iommufd.ioas()?;
        assert_eq!(device.attach(ioas)?, ioas, "{name}");
        assert_eq!(device.attach(ioas)?, ioas, "{name}");
        assert!(has(&iommufd, ioas)?, "{name}");
        device.detach()?;
        iommufd.destroy(ioas)?;
        drop(device);
    }
    Ok(())
}

fn attach_to_page_table_fails() -> Result<()> {
    let mdev = mdev("mtty-1")?;
    let iommufd = Iommufd::open()?;
    let physical = super::open(EDU)?;
    let physical_id = physical.bind(&iommufd)?;
    let ioas = iommufd.ioas()?;
    let table = iommufd.hwpt(physical_id, ioas)?;
    let device = open(&mdev)?;
    let id = device.bind(&iommufd)?;
    for object in [table, physical_id, id, 0, 12345] {
        assert_eq!(device.attach(object).errno(), Errno::ENOENT, "{object}");
    }
    let other = iommufd.hwpt(id, ioas);
    assert_eq!(other.errno(), Errno::ENOENT, "it has no IOMMU");
    device.attach(ioas)?;
    physical.attach(ioas)?;
    drop((device, physical));
    Ok(())
}

fn replace_and_detach() -> Result<()> {
    let mdev = mdev("mtty-1")?;
    let (device, iommufd) = bound(&mdev)?;
    device.detach()?;
    let (one, two) = (iommufd.ioas()?, iommufd.ioas()?);
    assert_eq!(device.attach(one)?, one);
    assert_eq!(device.attach(two)?, two);
    iommufd.destroy(one)?;
    assert_eq!(device.attach(12345).errno(), Errno::ENOENT);
    assert!(has(&iommufd, two)?, "still attached");
    device.detach()?;
    device.detach()?;
    iommufd.destroy(two)?;
    drop(device);
    Ok(())
}

fn no_pasids() -> Result<()> {
    let mdev = mdev("mtty-1")?;
    let (device, iommufd) = bound(&mdev)?;
    let ioas = iommufd.ioas()?;
    let attach = device.attach_pasid(1, ioas);
    assert_eq!(attach.errno(), Errno::EOPNOTSUPP);
    assert_eq!(device.detach_pasid(1).errno(), Errno::EOPNOTSUPP);
    // The size is checked later.
    let short = support::requests::AttachPt {
        argsz: support::requests::AttachPt::SIZE_WITHOUT_PASID,
        flags: support::requests::AttachPt::PASID,
        ..support::requests::AttachPt::to(ioas)
    };
    assert_eq!(short.send(&device), Err(Errno::EOPNOTSUPP));
    drop(device);
    Ok(())
}

fn page_table_id_that_cannot_be_written() -> Result<()> {
    let mdev = mdev("mtty-1")?;
    let (device, iommufd) = bound(&mdev)?;
    let ioas = iommufd.ioas()?;
    let mut memory = Memory::anonymous(PAGE_SIZE)?;
    let bytes = support::requests::AttachPt::to(ioas).bytes();
    memory.write(0, bytes.as_ref());
    memory.protect(true, false)?;
    let nr = request::DEVICE_ATTACH_IOMMUFD_PT;
    let answer = raw::at(&device, nr, &mut memory, 0);
    assert_eq!(answer, Err(Errno::EFAULT));
    iommufd.destroy(ioas)?;
    drop(device);
    Ok(())
}

fn interrupts() -> Result<()> {
    let mdev = mdev("mtty-1")?;
    let (device, _iommufd) = bound(&mdev)?;
    let interrupt = Interrupt::new()?;
    // The driver counts its interrupts when it is asked for them.
    device.info()?;
    device.enable_irqs(0, &[&interrupt])?;
    device.disable_irqs(0)?;
    let wrong = SetIrqs {
        index: 99,
        ..SetIrqs::default()
    };
    assert_eq!(wrong.send(&device), Err(Errno::EINVAL));
    drop(device);
    Ok(())
}

fn display_can_be_mapped() -> Result<()> {
    const DISPLAY: u32 = 0;
    let mdev = mdev("mdpy-vga")?;
    let (device, iommufd) = bound(&mdev)?;
    let region = device.region(DISPLAY)?;
    let memory = device.map_region(&region, 0, PAGE_SIZE)?;
    memory.write_u32(0, 0x1234_5678);
    let mut word = [0; 4];
    device.read(&region, 0, &mut word)?;
    assert_eq!(u32::from_le_bytes(word), 0x1234_5678);
    drop((memory, iommufd));
    drop(device);
    Ok(())
}

fn migration_through_device_file() -> Result<()> {
    let mdev = mdev("mtty-1")?;
    let (device, _iommufd) = bound(&mdev)?;
    assert_eq!(migration::state(&device)?, migration::RUNNING);
    assert!(!migration::save(&device)?.is_empty());
    migration::walk_back_to_running(&device)?;
    drop(device);
    Ok(())
}

fn dma_logging_on_device_file() -> Result<()> {
    let mdev = mdev("mtty-1")?;
    let device = open(&mdev)?;
    let ranges = [(0, 1 << 30)];
    let unbound = dma_logging::start(&device, PAGE, &ranges)?;
    assert_eq!(unbound, Err(Errno::EINVAL));
    device.bind(&Iommufd::open()?)?;
    let bits = Memory::anonymous(PAGE_SIZE)?;
    let report = LoggingReport {
        iova: 0,
        length: 1 << 20,
        page_size: PAGE,
        bitmap: bits.addr(),
    };
    assert_eq!(dma_logging::start(&device, PAGE, &ranges)?, Ok(PAGE));
    assert_eq!(dma_logging::send_report(&device, &report), Ok(0));
    let small = LoggingReport {
        page_size: 1024,
        ..report
    };
    let answer = dma_logging::send_report(&device, &small);
    assert_eq!(answer, Err(Errno::EINVAL));
    let wraps = LoggingReport {
        iova: u64::MAX - PAGE,
        ..report
    };
    let answer = dma_logging::send_report(&device, &wraps);
    assert_eq!(answer, Err(Errno::EOVERFLOW));
    assert_eq!(dma_logging::stop(&device), Ok(0));
    drop(device);
    Ok(())
}

fn removal_waits_for_device_file() -> Result<()> {
    let mdev = mdev("mtty-1")?;
    let (device, _iommufd) = bound(&mdev)?;
    let file = Device::file_of(&mdev.folder())?;
    let path = mdev.folder().join("remove");
    let remove = thread::spawn(move || store(path, "1"));
    assert!(until(crate::stall::LIMIT, || anyhow::Ok(!file.exists()))?);
    thread::sleep(Duration::from_millis(100));
    assert!(!remove.is_finished(), "the removal did not wait");
    device.info()?;
    drop(device);
    remove.join().map_err(|_| anyhow!("panic"))??;
    assert!(!mdev.folder().exists());
    mdev.keep();
    Ok(())
}

fn group_with_iommufd() -> Result<()> {
    let mdev = mdev("mtty-1")?;
    let iommufd = Iommufd::open()?;
    let group = mdev.group()?;
    group.set_container_fd(iommufd.as_fd().as_raw_fd())?;
    let ioas = iommufd.compat_ioas()?;
    assert_eq!(group.status()?, 3);
    let device = group.device(mdev.uuid())?;
    device.info()?;
    assert!(has(&iommufd, ioas)?, "the device is attached to it");
    let container = iommufd.as_container()?;
    let mut info = Bytes::of(&Type1Info {
        argsz: size_of::<Type1Info>() as u32,
        ..Type1Info::default()
    });
    raw::bytes(&container, request::IOMMU_GET_INFO, &mut info)?;
    group.unset_container()?;
    device.info()?;
    assert_eq!(group.device(mdev.uuid()).errno(), Errno::EINVAL);
    drop(device);
    iommufd.destroy(ioas)?;
    drop(group);
    Ok(())
}

fn emulated_and_physical_group_in_one_iommufd() -> Result<()> {
    let mdev = mdev("mtty-1")?;
    let iommufd = Iommufd::open()?;
    let (group, physical) = (mdev.group()?, crate::env::group(EDU)?);
    for group in [&group, &physical] {
        group.set_container_fd(iommufd.as_fd().as_raw_fd())?;
    }
    let devices = (group.device(mdev.uuid())?, physical.device(EDU)?);
    let memory = Memory::anonymous(PAGE_SIZE)?;
    let container = iommufd.as_container()?;
    container.map(0, &memory, MapFlags::ReadWrite)?;
    let edu = vfio_client::edu::Edu::new(&devices.1)?;
    assert!(super::reaches(&edu, &memory, 0)?);
    drop((edu, devices, group));
    Ok(())
}

fn close_in_every_order() -> Result<()> {
    for device_first in [false, true] {
        let mdev = mdev("mtty-1")?;
        let (device, iommufd) = bound(&mdev)?;
        device.attach(iommufd.ioas()?)?;
        if device_first {
            drop(device);
            drop(iommufd);
        } else {
            drop(iommufd);
            device.info()?;
            drop(device);
        }
        if requires::groups() {
            mdev.group()?;
        }
        bound(&mdev)?;
    }
    Ok(())
}
