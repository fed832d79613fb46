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
use std::fs;
use vfio_client::{
    Container,
    Errno,
    Iommu, //
};

cases! {
    #[rows("C10")] set_iommu_refused_without_interrupt_isolation,
    #[rows("T-P1")] allow_unsafe_interrupts_permits_it,
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
