// SPDX-License-Identifier: GPL-2.0

//! An IOMMU that does not isolate interrupts.

use crate::{
    env::{
        EDU,
        group, //
    },
    harness::{
        Failure,
        cases, //
    },
};
use anyhow::Result;
use std::{
    fs,
    os::fd::{
        AsFd,
        AsRawFd, //
    },
};
use vfio_client::{
    Container,
    Device,
    Errno,
    Iommu,
    Iommufd,
    pci, //
};

cases! {
    #[rows("C10")] set_iommu_refused_without_interrupt_isolation,
    #[rows("T-P1")] allow_unsafe_interrupts_permits_it,
    #[rows("V3")] #[requires(device_files)] bind_refused_without_interrupt_isolation,
}

const PARAMETER: &str = "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts";

fn set_iommu_refused_without_interrupt_isolation() -> Result<()> {
    let (container, group) = (Container::open()?, group(EDU)?);
    group.set_container(&container)?;
    for iommu in [Iommu::Type1, Iommu::Type1v2] {
        assert_eq!(container.set_iommu(iommu).errno(), Errno::EPERM);
    }
    assert_eq!(
        container.info().errno(),
        Errno::EINVAL,
        "the container has no IOMMU driver"
    );
    assert_eq!(group.status()?, 3, "the group stays in the container");
    assert_eq!(group.device(EDU).errno(), Errno::EINVAL);
    group.unset_container()?;
    assert_eq!(group.status()?, 1);
    Ok(())
}

fn allow_unsafe_interrupts_permits_it() -> Result<()> {
    let (container, group) = (Container::open()?, group(EDU)?);
    group.set_container(&container)?;
    assert_eq!(container.set_iommu(Iommu::Type1v2).errno(), Errno::EPERM);
    fs::write(PARAMETER, "Y")?;
    let answer = container.set_iommu(Iommu::Type1v2);
    fs::write(PARAMETER, "N")?;
    answer?;
    group.device(EDU)?.info()?;
    Ok(())
}

/// Iommufd has a parameter of its own.
fn bind_refused_without_interrupt_isolation() -> Result<()> {
    const PARAMETER: &str = "/sys/module/iommufd/parameters/allow_unsafe_interrupts";
    let iommufd = Iommufd::open()?;
    let device = Device::open_file(&pci::sysfs(EDU))?;
    assert_eq!(device.bind(&iommufd).errno(), Errno::EPERM);
    assert_eq!(device.info().errno(), Errno::EINVAL);
    let through_group = group(EDU)?;
    through_group.set_container_fd(iommufd.as_fd().as_raw_fd())?;
    assert_eq!(through_group.device(EDU).errno(), Errno::EPERM);
    drop(through_group);
    fs::write(PARAMETER, "Y")?;
    let answer = device.bind(&iommufd);
    fs::write(PARAMETER, "N")?;
    answer?;
    device.info()?;
    Ok(())
}
