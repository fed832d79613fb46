// SPDX-License-Identifier: GPL-2.0

//! A group and the device files of its devices exclude each other.

use super::{
    CLOSED,
    WithoutDriver,
    bound,
    open, //
};
use crate::{
    env::{
        EDU,
        NVME,
        SHARED,
        SIBLING,
        Setup,
        attached,
        group, //
    },
    harness::{
        Failure,
        cases, //
    },
    threads::errno_of, //
};
use anyhow::Result;
use support::requests::BindIommufd;
use vfio_client::{
    Container,
    Errno,
    Group,
    Iommu,
    Iommufd,
    pci, //
};

cases! {
    #[rows("G2")] #[requires(containers)] bound_device_excludes_group,
    #[rows("G2")] #[requires(containers)] unbound_file_does_not_exclude_group,
    #[rows("G2")] #[requires(groups)] every_bound_device_excludes_group,
    #[rows("G2")] #[requires(groups)] failed_binds_do_not_exclude_group,
    #[rows("V3")] #[requires(containers)] open_group_excludes_bind,
    #[rows("V3")] #[requires(containers)] device_of_closed_group_excludes_bind,
    #[rows("V3")] #[requires(containers)] group_and_other_groups_device_file,
    #[rows("G2", "V3")] #[requires(containers)] alternate,
    #[rows("V10")] #[requires(groups)] group_opens_after_last_close,
}

/// Returns the errno with which the group of a device cannot be opened.
fn group_errno(bdf: &str) -> Option<Errno> {
    group(bdf).err().and_then(|error| errno_of(&error))
}

fn bound_device_excludes_group() -> Result<()> {
    let (device, iommufd) = bound(EDU)?;
    assert_eq!(group_errno(EDU), Some(Errno::EBUSY));
    drop(iommufd);
    assert_eq!(group_errno(EDU), Some(Errno::EBUSY), "still bound");
    device.info()?;
    drop(device);
    let setup = Setup::new()?;
    setup.device.info()?;
    Ok(())
}

fn unbound_file_does_not_exclude_group() -> Result<()> {
    let unbound = open(EDU)?;
    let setup = Setup::new()?;
    setup.device.info()?;
    drop(open(EDU)?);
    assert_eq!(unbound.info().errno(), Errno::EINVAL);
    setup.device.info()?;
    let busy = unbound.bind(&Iommufd::open()?);
    assert_eq!(busy.errno(), Errno::EBUSY);
    Ok(())
}

fn every_bound_device_excludes_group() -> Result<()> {
    let sibling = WithoutDriver::new()?;
    sibling.bind_vfio()?;
    let (first, iommufd) = bound(SHARED)?;
    let second = open(SIBLING)?;
    second.bind(&iommufd)?;
    assert_eq!(group_errno(SHARED), Some(Errno::EBUSY));
    drop(first);
    assert_eq!(group_errno(SHARED), Some(Errno::EBUSY));
    drop(second);
    group(SHARED)?;
    Ok(())
}

fn failed_binds_do_not_exclude_group() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let (edu, shared) = (open(EDU)?, open(SHARED)?);
    for fd in [-1, CLOSED, 0] {
        let bind = BindIommufd {
            iommufd: fd,
            ..BindIommufd::default()
        };
        assert!(bind.send(&edu).is_err(), "descriptor {fd}");
        group(EDU)?;
    }
    assert_eq!(shared.bind(&iommufd).errno(), Errno::EPERM);
    group(SHARED)?;
    edu.bind(&iommufd)?;
    let second = open(EDU)?;
    assert_eq!(second.bind(&iommufd).errno(), Errno::EINVAL);
    drop(second);
    assert_eq!(group_errno(EDU), Some(Errno::EBUSY), "the first is bound");
    Ok(())
}

fn open_group_excludes_bind() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let device = open(EDU)?;
    let group = group(EDU)?;
    assert_eq!(device.bind(&iommufd).errno(), Errno::EBUSY);
    let container = Container::open()?;
    group.set_container(&container)?;
    assert_eq!(device.bind(&iommufd).errno(), Errno::EBUSY);
    container.set_iommu(Iommu::Type1v2)?;
    assert_eq!(device.bind(&iommufd).errno(), Errno::EBUSY);
    group.unset_container()?;
    assert_eq!(device.bind(&iommufd).errno(), Errno::EBUSY);
    drop(container);
    drop(group);
    device.bind(&iommufd)?;
    device.info()?;
    Ok(())
}

fn device_of_closed_group_excludes_bind() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let device = open(EDU)?;
    let setup = Setup::new()?;
    drop((setup.group, setup.container));
    assert_eq!(device.bind(&iommufd).errno(), Errno::EBUSY);
    setup.device.info()?;
    drop(setup.device);
    device.bind(&iommufd)?;
    Ok(())
}

fn group_and_other_groups_device_file() -> Result<()> {
    let (_container, group) = attached(EDU, Iommu::Type1v2)?;
    let through_group = group.device(EDU)?;
    let (by_file, _iommufd) = bound(NVME)?;
    through_group.info()?;
    by_file.info()?;
    Ok(())
}

fn alternate() -> Result<()> {
    for _ in 0..5 {
        let (device, _iommufd) = bound(EDU)?;
        assert_eq!(group_errno(EDU), Some(Errno::EBUSY));
        drop(device);
        let setup = Setup::new()?;
        let busy = bound(EDU).err();
        let busy = busy.and_then(|error| errno_of(&error));
        assert_eq!(busy, Some(Errno::EBUSY));
        setup.device.info()?;
    }
    Ok(())
}

fn group_opens_after_last_close() -> Result<()> {
    let number = pci::group_of(EDU)?;
    let (device, _iommufd) = bound(EDU)?;
    let copy = device.try_clone()?;
    drop(device);
    assert_eq!(Group::open(number).errno(), Errno::EBUSY);
    copy.info()?;
    drop(copy);
    Group::open(number)?;
    Ok(())
}
