// SPDX-License-Identifier: GPL-2.0

//! The requests that the Rust modules add for groups, on device files and on groups in an iommufd.

use super::{
    Attached,
    open,
    reaches, //
};
use crate::{
    cases::binding::{
        devices_request,
        merge_group, //
    },
    env::{
        EDU,
        NVME,
        group, //
    },
    harness::cases,
};
use anyhow::Result;
use std::os::fd::{
    AsFd,
    AsRawFd, //
};
use vfio_client::{
    Bytes,
    Device,
    Errno,
    Iommufd,
    Memory,
    PAGE_SIZE,
    edu::Edu,
    raw,
    request, //
};

cases! {
    no_containers_on_device_file,
    #[requires(core(C))] c_core_lists_no_devices_on_device_file,
    #[requires(core(Rust), groups)] group_in_iommufd,
}

/// Sends the requests that are about the container of a group. `other` is the descriptor of another
/// group, or of a file that is none.
fn container_requests(device: &Device, other: i32) -> [std::result::Result<i32, Errno>; 3] {
    [
        raw::bytes(device, request::GROUP_MERGE, &mut Bytes::of(&other)),
        raw::none(device, request::GROUP_UNMERGE),
        raw::none(device, request::GROUP_GET_IOMMU_FD),
    ]
}

/// A device file has no container. To share an address space, devices are attached to one IOAS.
fn no_containers_on_device_file() -> Result<()> {
    let unbound = open(EDU)?;
    let iommufd = Iommufd::open()?;
    let other = iommufd.as_fd().as_raw_fd();
    assert_eq!(container_requests(&unbound, other), [Err(Errno::EINVAL); 3]);
    drop(unbound);
    let attached = Attached::new()?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    attached.map(0x10_0000, &memory)?;
    let edu = Edu::new(&attached.device)?;
    let second = open(NVME)?;
    for other in [other, -1, second.as_fd().as_raw_fd()] {
        let answers = container_requests(&attached.device, other);
        assert_eq!(answers, [Err(Errno::ENOTTY); 3]);
    }
    assert!(reaches(&edu, &memory, 0x10_0000)?);
    Ok(())
}

fn c_core_lists_no_devices_on_device_file() -> Result<()> {
    let attached = Attached::new()?;
    let mut devices = devices_request(1);
    let answer = raw::bytes(&attached.device, request::GROUP_GET_DEVICES, &mut devices);
    assert_eq!(answer, Err(Errno::ENOTTY));
    Ok(())
}

fn group_in_iommufd() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let (first, second) = (group(EDU)?, group(NVME)?);
    first.set_container_fd(iommufd.as_fd().as_raw_fd())?;
    let ioas = iommufd.compat_ioas()?;
    for (group, other) in [(&first, &second), (&second, &first)] {
        assert_eq!(merge_group(group, other), Err(Errno::EINVAL));
    }
    for nr in [request::GROUP_UNMERGE, request::GROUP_GET_IOMMU_FD] {
        assert_eq!(raw::none(&first, nr), Err(Errno::EINVAL));
    }
    assert_eq!((first.status()?, second.status()?), (3, 1));
    assert_eq!(iommufd.compat_ioas()?, ioas);
    let mut devices = devices_request(8);
    raw::bytes(&first, request::GROUP_GET_DEVICES, &mut devices)?;
    // The iommufd takes the place of these requests.
    second.set_container_fd(iommufd.as_fd().as_raw_fd())?;
    first.device(EDU)?;
    second.device(NVME)?;
    Ok(())
}
