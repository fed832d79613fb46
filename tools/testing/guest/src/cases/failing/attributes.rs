// SPDX-License-Identifier: GPL-2.0

//! Binding, creating and removing devices through sysfs.

use super::{
    By,
    endures, //
};
use crate::{
    env::EDU,
    fail_nth::{
        Below,
        Failing,
        Operation,
        each_failure, //
    },
    harness::cases,
    mdev::{
        UUIDS,
        create,
        store,
        type_attribute,
        type_folder, //
    },
    requires::{
        Language::Rust,
        core, //
    },
};
use anyhow::{
    Context,
    Result,
    ensure, //
};
use std::{
    fs,
    path::{
        Path,
        PathBuf, //
    },
};
use vfio_client::pci;

cases! {
    #[requires(fault_injection)] bind,
    #[requires(fault_injection)] unbind,
    #[requires(fault_injection)] bind_by_new_id,
    #[requires(fault_injection)] mdev_create,
    #[requires(fault_injection)] mdev_remove,
}

const DRIVER: Below = Below::module("vfio_pci");
const MDEV: Below = Below::module("mdev");

/// When an allocation fails, the kernel creates no device node and reports no error. The C core
/// warns when it releases a group that it could not create.
fn group_spared(below: Below) -> Below {
    below.but_for(if core(Rust) {
        "devtmpfs_create_node"
    } else {
        "vfio_create_group"
    })
}

/// When an allocation fails, the kernel keeps the device node.
const REMOVED: &str = "devtmpfs_delete_node";

/// While this exists, the kernel probes the device in the writing thread instead of a kernel
/// thread.
struct ProbedByWriter(String);

impl ProbedByWriter {
    const NODE: &str = "numa_node";

    fn new() -> Result<Self> {
        let before = fs::read_to_string(pci::sysfs(EDU).join(Self::NODE))?;
        pci::write_attribute(EDU, Self::NODE, "-1")?;
        Ok(Self(before))
    }
}

impl Drop for ProbedByWriter {
    fn drop(&mut self) {
        pci::write_attribute(EDU, Self::NODE, &self.0).expect("it was so before");
    }
}

/// Injects failures into a write that allocates memory.
fn written(below: Below, operation: &impl Operation) -> Result<()> {
    let failures = each_failure(Failing::Allocations, below, operation)?;
    ensure!(failures.passed_on != 0, "it needs no memory");
    Ok(())
}

/// Returns the driver bound to the device, and whether the node of its group exists.
fn bound() -> Result<(Option<String>, bool)> {
    let node = format!("/dev/vfio/{}", pci::group_of(EDU)?);
    Ok((pci::driver(EDU), Path::new(&node).exists()))
}

/// Binds the device by `request`, which does not fail if the driver's probe fails.
fn bind_by(before: impl Fn() -> Result<()>, request: impl Fn() -> Result<()>) -> Result<()> {
    let operation = By {
        before: || {
            pci::unbind(EDU)?;
            before()
        },
        request: |_: &()| {
            request()?;
            pci::driver(EDU).context("the driver did not take it")
        },
        state: |_: &()| bound(),
        after: |(), driver: String| {
            ensure!(driver == "vfio-pci", "{driver} took it");
            ensure!(bound()?.1, "its group has no node");
            Ok(())
        },
    };
    let _here = ProbedByWriter::new()?;
    written(group_spared(DRIVER), &operation)
}

fn bind() -> Result<()> {
    bind_by(|| Ok(()), || Ok(pci::bind(EDU, "vfio-pci")?))
}

fn unbind() -> Result<()> {
    let operation = By {
        before: || Ok(()),
        request: |_: &()| Ok(pci::unbind(EDU)?),
        state: |_: &()| bound(),
        after: |(), ()| {
            ensure!(bound()? == (None, false), "it stays");
            Ok(pci::bind(EDU, "vfio-pci")?)
        },
    };
    endures(DRIVER.but_for(REMOVED), &operation)
}

/// Writes the device and vendor ids of the device to an attribute of the driver.
fn write_id(name: &str) -> Result<()> {
    let number = |name| pci::read_number(EDU, name);
    let id = format!("{:x} {:x}", number("vendor")?, number("device")?);
    let path = Path::new("/sys/bus/pci/drivers/vfio-pci").join(name);
    fs::write(&path, id).with_context(|| path.display().to_string())
}

fn bind_by_new_id() -> Result<()> {
    let outcome = bind_by(
        || Ok(pci::write_attribute(EDU, "driver_override", "\n")?),
        || {
            write_id("new_id")?;
            // Otherwise the driver would bind other devices with the same id.
            write_id("remove_id")
        },
    );
    pci::write_attribute(EDU, "driver_override", "vfio-pci")?;
    outcome
}

const TYPE: &str = "mtty-1";

/// Returns the sysfs directory of the created device.
fn folder() -> PathBuf {
    Path::new("/sys/bus/mdev/devices").join(UUIDS[0])
}

/// Returns whether the device exists, and how many more can be created.
fn made() -> Result<(bool, String)> {
    let left = type_attribute(TYPE, "available_instances")?;
    Ok((folder().exists(), left))
}

fn make() -> Result<()> {
    create(TYPE, UUIDS[0]).with_context(|| type_folder(TYPE).display().to_string())
}

fn remove() -> Result<()> {
    Ok(store(folder().join("remove"), "1")?)
}

fn mdev_create() -> Result<()> {
    let operation = By {
        before: || Ok(()),
        request: |_: &()| make(),
        state: |_: &()| made(),
        after: |(), ()| {
            ensure!(made()?.0, "it was not made");
            remove()
        },
    };
    written(group_spared(MDEV), &operation)
}

fn mdev_remove() -> Result<()> {
    let operation = By {
        before: make,
        request: |_: &()| remove(),
        state: |_: &()| made(),
        after: |(), ()| {
            ensure!(!made()?.0, "it stays");
            Ok(())
        },
    };
    endures(MDEV.but_for(REMOVED), &operation)
}
