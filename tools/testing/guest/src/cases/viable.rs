// SPDX-License-Identifier: GPL-2.0

//! Groups in which a host driver is bound to another device.

use crate::{
    env::{
        SHARED,
        SIBLING,
        group, //
    },
    harness::{
        Failure,
        cases, //
    },
};
use anyhow::{
    Result,
    ensure, //
};
use std::fs;
use vfio_client::{
    Container,
    Errno,
    Iommu,
    pci, //
};

cases! {
    #[rows("G7")] group_with_host_driver_is_not_viable,
    #[rows("G7")] group_is_viable_after_host_driver_unbinds,
    #[rows("G9")] host_driver_cannot_bind_while_group_is_owned,
    #[rows("G9")] host_driver_binds_after_release,
}

/// Unbinds the sibling from its driver. Dropping this binds it again.
pub(super) struct Unbound {
    driver: String,
}

impl Unbound {
    pub(super) fn new() -> Result<Self> {
        let driver = pci::driver(SIBLING);
        ensure!(driver.is_some(), "{SIBLING} has no driver before the test");
        let driver = driver.unwrap_or_default();
        pci::unbind(SIBLING)?;
        Ok(Self { driver })
    }

    fn bind(&self) -> std::io::Result<()> {
        fs::write(
            format!("/sys/bus/pci/drivers/{}/bind", self.driver),
            SIBLING,
        )
    }
}

impl Drop for Unbound {
    fn drop(&mut self) {
        if pci::driver(SIBLING).is_none() {
            let _ = self.bind();
        }
    }
}

fn group_with_host_driver_is_not_viable() -> Result<()> {
    ensure!(pci::driver(SIBLING).is_some(), "{SIBLING} has no driver");
    ensure!(
        pci::group_of(SHARED)? == pci::group_of(SIBLING)?,
        "{SHARED} and {SIBLING} are in different groups"
    );
    let group = group(SHARED)?;
    assert_eq!(group.status()?, 0);
    let container = Container::open()?;
    assert_eq!(group.set_container(&container).errno(), Errno::EPERM);
    assert_eq!(group.status()?, 0);
    assert_eq!(group.unset_container().errno(), Errno::EINVAL);
    assert_eq!(group.device(SHARED).errno(), Errno::EINVAL);
    assert_eq!(
        container.set_iommu(Iommu::Type1v2).errno(),
        Errno::EINVAL,
        "the group must not be in the container"
    );
    Ok(())
}

fn group_is_viable_after_host_driver_unbinds() -> Result<()> {
    let sibling = Unbound::new()?;
    let group = group(SHARED)?;
    assert_eq!(group.status()?, 1);
    let _container = group.attach(Iommu::Type1v2)?;
    group.device(SHARED)?.info()?;
    assert_eq!(
        group.device(SIBLING).errno(),
        Errno::ENODEV,
        "the driver must not be vfio-pci"
    );
    group.unset_container()?;
    sibling.bind()?;
    assert_eq!(group.status()?, 0);
    Ok(())
}

fn host_driver_cannot_bind_while_group_is_owned() -> Result<()> {
    let sibling = Unbound::new()?;
    let group = group(SHARED)?;
    let container = Container::open()?;
    group.set_container(&container)?;
    assert_eq!(sibling.bind().errno(), Errno::EBUSY);
    assert_eq!(pci::driver(SIBLING), None);
    container.set_iommu(Iommu::Type1v2)?;
    assert_eq!(sibling.bind().errno(), Errno::EBUSY);
    let device = group.device(SHARED)?;
    drop((container, group));
    assert_eq!(
        sibling.bind().errno(),
        Errno::EBUSY,
        "the device is still open"
    );
    device.info()?;
    Ok(())
}

fn host_driver_binds_after_release() -> Result<()> {
    let sibling = Unbound::new()?;
    let group = group(SHARED)?;
    let container = Container::open()?;
    group.set_container(&container)?;
    drop(group);
    sibling.bind()?;
    assert!(pci::driver(SIBLING).is_some());
    Ok(())
}
