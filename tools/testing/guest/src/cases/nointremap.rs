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
    c10_not_isolated,
    t_p1_allow_unsafe_interrupts,
}

const PARAMETER: &str = "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts";

fn c10_not_isolated() -> Result<()> {
    let (container, group) = (Container::open()?, group(EDU)?);
    group.set_container(&container)?;
    for iommu in [Iommu::Type1, Iommu::Type1v2] {
        assert_eq!(container.set_iommu(iommu).errno(), Errno::EPERM);
    }
    assert_eq!(container.info().errno(), Errno::EINVAL, "still unset");
    assert_eq!(group.status()?, 3, "the group stays");
    assert_eq!(group.device(EDU).errno(), Errno::EINVAL);
    group.unset_container()?;
    assert_eq!(group.status()?, 1);
    Ok(())
}

fn t_p1_allow_unsafe_interrupts() -> Result<()> {
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
