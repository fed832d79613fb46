// SPDX-License-Identifier: GPL-2.0

//! Device files: opening, binding, attaching and closing them.

use super::{
    By,
    VFIO,
    copies,
    everything, //
};
use crate::{
    env::{
        EDU,
        group, //
    },
    fail_nth::{
        Below,
        Failing,
        each_failure, //
    },
    harness::cases,
    mdev::{
        Mdev,
        UUIDS, //
    },
    pin, //
};
use anyhow::{
    Result,
    ensure, //
};
use std::os::fd::{
    AsFd,
    AsRawFd, //
};
use support::machine::pinned_pages;
use vfio_client::{
    Device,
    Iommufd,
    MapFlags,
    Memory,
    PAGE_SIZE,
    pci, //
};

cases! {
    #[requires(fault_injection, device_files)] open_file,
    #[requires(fault_injection, device_files)] bind_physical,
    #[requires(fault_injection, device_files)] bind_emulated,
    #[requires(fault_injection, device_files)] attach_physical,
    #[requires(fault_injection, device_files)] replace_physical,
    #[requires(fault_injection, device_files)] attach_emulated,
    #[requires(fault_injection, device_files)] detach_physical,
    #[requires(fault_injection, iommufd)] set_container_to_iommufd,
    #[requires(fault_injection, iommufd)] get_device_of_group_with_iommufd,
}

/// When it routes the interrupt of a device, the kernel leaves ACPI locks and reference counts
/// behind.
const ROUTED: Below = VFIO.but_for("acpi_pci_irq_enable");

/// Opens the file of a PCI device.
fn open(bdf: &str) -> Result<Device> {
    Ok(Device::open_file(&pci::sysfs(bdf))?)
}

/// Returns whether nothing has bound a device.
fn is_free(bdf: &str) -> bool {
    group(bdf).is_ok()
}

fn open_file() -> Result<()> {
    let operation = By {
        before: || Ok(()),
        request: |_: &()| open(EDU),
        state: |_: &()| Ok(is_free(EDU)),
        after: |(), device: Device| {
            device.bind(&Iommufd::open()?)?;
            Ok(())
        },
    };
    everything(VFIO, &operation)
}

fn bind_physical() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let operation = By {
        before: || open(EDU),
        request: |device: &Device| Ok(device.bind(&iommufd)?),
        state: |device: &Device| Ok((is_free(EDU), device.info().is_ok())),
        after: |device: Device, _id: u32| {
            device.info()?;
            drop(device);
            ensure!(is_free(EDU), "it stays bound");
            Ok(())
        },
    };
    everything(ROUTED, &operation)
}

fn bind_emulated() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let iommufd = Iommufd::open()?;
    let operation = By {
        before: || Ok(Device::open_file(&mdev.folder())?),
        request: |device: &Device| Ok(device.bind(&iommufd)?),
        state: |device: &Device| Ok((mdev.group().is_ok(), device.info().is_ok())),
        after: |device: Device, _id: u32| {
            device.info()?;
            drop(device);
            ensure!(mdev.group().is_ok(), "it stays bound");
            Ok(())
        },
    };
    everything(VFIO, &operation)
}

fn attach_physical() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let device = open(EDU)?;
    device.bind(&iommufd)?;
    let memory = Memory::anonymous(64 * PAGE_SIZE)?;
    let operation = By {
        before: || {
            let ioas = iommufd.ioas()?;
            iommufd.map(ioas, 0, &memory, MapFlags::ReadWrite)?;
            Ok(ioas)
        },
        request: |ioas: &u32| Ok(device.attach(*ioas)?),
        state: |_: &u32| pinned_pages(),
        after: |ioas: u32, _table: u32| {
            device.detach()?;
            Ok(iommufd.destroy(ioas)?)
        },
    };
    everything(VFIO, &operation)
}

/// A failed copy of the new id detaches the device, so that only allocations fail.
fn replace_physical() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let device = open(EDU)?;
    device.bind(&iommufd)?;
    let memory = Memory::anonymous(64 * PAGE_SIZE)?;
    let first = iommufd.ioas()?;
    iommufd.map(first, 0, &memory, MapFlags::ReadWrite)?;
    let operation = By {
        before: || {
            device.attach(first)?;
            Ok(iommufd.ioas()?)
        },
        request: |second: &u32| Ok(device.attach(*second)?),
        state: |_: &u32| pinned_pages(),
        after: |second: u32, _table: u32| {
            device.attach(first)?;
            Ok(iommufd.destroy(second)?)
        },
    };
    let failures = each_failure(Failing::Allocations, VFIO, &operation)?;
    ensure!(failures.passed_on != 0, "no allocation failed");
    Ok(())
}

fn attach_emulated() -> Result<()> {
    pin::prepare()?;
    let iommufd = Iommufd::open()?;
    let device = pin::open_file()?;
    device.bind(&iommufd)?;
    let operation = By {
        before: || Ok(iommufd.ioas()?),
        request: |ioas: &u32| Ok(device.attach(*ioas)?),
        state: |_: &u32| pinned_pages(),
        after: |ioas: u32, _same: u32| {
            device.detach()?;
            Ok(iommufd.destroy(ioas)?)
        },
    };
    copies(VFIO, &operation)
}

fn detach_physical() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let device = open(EDU)?;
    device.bind(&iommufd)?;
    let ioas = iommufd.ioas()?;
    let operation = By {
        before: || Ok(device.attach(ioas)?),
        request: |_: &u32| Ok(device.detach()?),
        state: |table: &u32| Ok(iommufd.destroy(*table).map_err(|error| error.errno())),
        after: |table: u32, ()| {
            ensure!(iommufd.destroy(table).is_err(), "it stays attached");
            Ok(())
        },
    };
    copies(VFIO, &operation)
}

fn set_container_to_iommufd() -> Result<()> {
    let group = group(EDU)?;
    let operation = By {
        before: || Ok(Iommufd::open()?),
        request: |iommufd: &Iommufd| Ok(group.set_container_fd(iommufd.as_fd().as_raw_fd())?),
        state: |_: &Iommufd| Ok(group.status()?),
        after: |_iommufd, ()| Ok(group.unset_container()?),
    };
    everything(VFIO, &operation)
}

fn get_device_of_group_with_iommufd() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let group = group(EDU)?;
    group.set_container_fd(iommufd.as_fd().as_raw_fd())?;
    let operation = By {
        before: || Ok(()),
        request: |_: &()| Ok(group.device(EDU)?),
        state: |_: &()| Ok(group.status()?),
        after: |(), device: Device| {
            device.info()?;
            Ok(())
        },
    };
    everything(ROUTED, &operation)
}
