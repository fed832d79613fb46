// SPDX-License-Identifier: GPL-2.0

//! Log messages about requests that the state of a group does not allow.
//!
//! The C core logs nothing.

use crate::{
    env::{
        EDU,
        NVME,
        SHARED,
        SIBLING,
        attached,
        group, //
    },
    harness::cases, //
};
use anyhow::{
    Result,
    bail,
    ensure, //
};
use std::os::fd::{
    AsFd,
    AsRawFd, //
};
use support::{
    helper::Helper,
    kmsg::{
        self,
        Log, //
    },
    requests::UnmapDma, //
};
use vfio_client::{
    Bytes,
    Container,
    Errno,
    Group,
    Iommu,
    MapFlags,
    Memory,
    PAGE_SIZE,
    pci,
    raw,
    request, //
};

cases! {
    #[requires(core(Rust))] log_names_process_that_holds_group,
    #[requires(core(Rust))] log_names_host_driver,
    #[requires(core(Rust))] log_explains_set_container_in_container,
    #[requires(core(Rust))] log_explains_missing_container,
    #[requires(core(Rust))] log_explains_missing_iommu_driver,
    #[requires(core(Rust))] log_names_holder_of_open_device,
    #[requires(core(Rust))] log_explains_unmerge_of_only_group,
    #[requires(core(Rust))] log_explains_failed_attach,
    #[requires(core(Rust))] log_is_rate_limited,
}

/// Waits until a failing request logs a line with all of `parts`.
fn says(errno: Errno, parts: &[&str], ask: impl Fn() -> Result<(), Errno>) -> Result<()> {
    kmsg::says(parts, || {
        assert_eq!(ask(), Err(errno));
        Ok(())
    })
}

/// Keeps only the errno of a result.
fn errno<T>(result: vfio_client::Result<T>) -> Result<(), Errno> {
    result.map(drop).map_err(|error| error.errno())
}

/// Returns how a log message names a device: by its driver, its address and its group.
fn named(bdf: &str) -> Result<String> {
    Ok(format!("vfio-pci {bdf}: group {}: ", pci::group_of(bdf)?))
}

fn log_names_process_that_holds_group() -> Result<()> {
    let mut helper = Helper::spawn(&["hold", EDU], &[])?;
    assert_eq!(helper.line()?, "ready");
    let number = pci::group_of(EDU)?;
    let holder = format!("open by exe ({})", helper.id());
    let parts = [
        &named(EDU)?,
        "open refused: ",
        &holder,
        "close it in that process",
    ];
    says(Errno::EBUSY, &parts, || errno(Group::open(number)))?;
    helper.proceed()?;
    helper.finish()
}

fn log_names_host_driver() -> Result<()> {
    let container = Container::open()?;
    let shared = group(SHARED)?;
    let number = pci::group_of(SHARED)?;
    let Some(driver) = pci::driver(SIBLING) else {
        bail!("{SIBLING} has no driver");
    };
    let parts = [
        SIBLING,
        &format!("blocks group {number}: bound to driver {driver}"),
        "unbind it, or bind it to vfio-pci",
    ];
    says(Errno::EPERM, &parts, || {
        errno(shared.set_container(&container))
    })
}

fn log_explains_set_container_in_container() -> Result<()> {
    let (container, group) = attached(EDU, Iommu::Type1v2)?;
    let name = named(EDU)?;
    let reason = "it is in a container; use VFIO_GROUP_UNSET_CONTAINER first";
    let parts = [&name, "VFIO_GROUP_SET_CONTAINER refused: ", reason];
    says(Errno::EINVAL, &parts, || {
        errno(group.set_container(&container))
    })?;
    let other = crate::env::group(NVME)?;
    let fd = group.as_fd().as_raw_fd();
    let parts = [&name, "VFIO_GROUP_MERGE refused: ", reason];
    says(Errno::EINVAL, &parts, || {
        let mut argument = Bytes::of(&fd);
        raw::bytes(&other, request::GROUP_MERGE, &mut argument).map(drop)
    })
}

fn log_explains_missing_container() -> Result<()> {
    let group = group(EDU)?;
    let name = named(EDU)?;
    let reason = "it is in no container; use VFIO_GROUP_SET_CONTAINER first";
    let parts = [&name, "VFIO_GROUP_UNSET_CONTAINER refused: ", reason];
    says(Errno::EINVAL, &parts, || errno(group.unset_container()))?;
    let parts = [&name, "VFIO_GROUP_UNMERGE refused: ", reason];
    says(Errno::EINVAL, &parts, || {
        raw::none(&group, request::GROUP_UNMERGE).map(drop)
    })?;
    let parts = [&name, "VFIO_GROUP_GET_DEVICE_FD refused: ", reason];
    says(Errno::EINVAL, &parts, || errno(group.device(EDU)))
}

fn log_explains_missing_iommu_driver() -> Result<()> {
    let group = group(EDU)?;
    let container = Container::open()?;
    group.set_container(&container)?;
    let parts = [
        &named(EDU)?,
        "VFIO_GROUP_GET_DEVICE_FD refused: ",
        "its container has no address space; use VFIO_SET_IOMMU first",
    ];
    says(Errno::EINVAL, &parts, || errno(group.device(EDU)))
}

fn log_names_holder_of_open_device() -> Result<()> {
    let (_container, group) = attached(EDU, Iommu::Type1v2)?;
    let _device = group.device(EDU)?;
    let holder = format!("({})", nix::unistd::gettid());
    let name = named(EDU)?;
    for (request, ask) in [
        ("VFIO_GROUP_UNSET_CONTAINER", request::GROUP_UNSET_CONTAINER),
        ("VFIO_GROUP_UNMERGE", request::GROUP_UNMERGE),
    ] {
        let second = (ask == request::GROUP_UNMERGE)
            .then(|| merged(&group))
            .transpose()?;
        let text = format!("{request} refused: its device is open by ");
        let parts = [&name, text.as_str(), &holder, "close it in that process"];
        says(Errno::EBUSY, &parts, || raw::none(&group, ask).map(drop))?;
        drop(second);
    }
    Ok(())
}

/// Merges the group of the disk with `group`, and returns it.
fn merged(group: &Group) -> Result<Group> {
    let other = crate::env::group(NVME)?;
    let mut argument = Bytes::of(&other.as_fd().as_raw_fd());
    raw::bytes(group, request::GROUP_MERGE, &mut argument)?;
    Ok(other)
}

fn log_explains_unmerge_of_only_group() -> Result<()> {
    let (_container, group) = attached(EDU, Iommu::Type1v2)?;
    let parts = [
        &named(EDU)?,
        "VFIO_GROUP_UNMERGE refused: ",
        "no other group is in its container; use VFIO_GROUP_UNSET_CONTAINER",
    ];
    says(Errno::EINVAL, &parts, || {
        raw::none(&group, request::GROUP_UNMERGE).map(drop)
    })
}

/// Memory whose vaddr was invalidated cannot be mapped for another device.
fn log_explains_failed_attach() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    container.map(0x10_0000, &memory, MapFlags::ReadWrite)?;
    let invalidate = UnmapDma {
        flags: UnmapDma::VADDR,
        ..UnmapDma::of(0x10_0000, PAGE_SIZE as u64)
    };
    invalidate.send(&container)?;
    let other = group(NVME)?;
    let number = pci::group_of(NVME)?;
    let parts = [
        &format!("group {number}: VFIO_GROUP_SET_CONTAINER failed: "),
        "attaching the group returned error -16",
    ];
    says(Errno::EBUSY, &parts, || {
        errno(other.set_container(&container))
    })
}

fn log_is_rate_limited() -> Result<()> {
    let group = group(EDU)?;
    let mut log = Log::follow()?;
    says(Errno::EINVAL, &["UNSET_CONTAINER refused"], || {
        errno(group.unset_container())
    })?;
    for _ in 0..2000 {
        assert_eq!(errno(group.unset_container()), Err(Errno::EINVAL));
    }
    let lines = log.text().matches("refused").count();
    ensure!(
        lines <= 40,
        "expected at most 40 log messages for 2000 requests, got {lines}"
    );
    Ok(())
}
