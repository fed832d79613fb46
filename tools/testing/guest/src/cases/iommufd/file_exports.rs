// SPDX-License-Identifier: GPL-2.0

//! The functions that the core exports, on device files, and a device whose driver has as few
//! callbacks as possible.

use super::{
    bound,
    open, //
};
use crate::{
    core_test::{
        CoreTest,
        ENFORCED_COHERENT,
        IS_GROUP,
        IS_VALID,
        NAME,
        SECOND,
        SET_OPEN_SHIFT, //
    },
    env::{
        EDU,
        Setup, //
    },
    harness::{
        Failure,
        cases, //
    },
};
use anyhow::Result;
use std::path::Path;
use vfio_client::{
    Device,
    Errno,
    Iommufd,
    Memory,
    PAGE_SIZE,
    raw, //
};

cases! {
    #[rows("D26")] #[requires(containers)] file_functions,
    #[rows("K8")] set_counts_bound_devices,
    #[rows("D3")] missing_operations,
    #[rows("V3")] driver_without_tokens,
}

/// Opens the file of a device of the test driver.
fn bare(name: &str) -> vfio_client::Result<Device> {
    Device::open_file(&Path::new("/sys/bus/platform/devices").join(name))
}

fn file_functions() -> Result<()> {
    let test = CoreTest::open()?;
    let setup = Setup::new()?;
    let expected = test.file(&setup.device)?;
    assert_eq!(expected & !ENFORCED_COHERENT, IS_VALID);
    drop(setup);
    let unbound = open(EDU)?;
    assert_eq!(test.file(&unbound)?, expected);
    let (device, iommufd) = bound(EDU)?;
    assert_eq!(test.file(&device)?, expected);
    assert_eq!(expected & IS_GROUP, 0);
    assert_eq!(test.file(&iommufd)?, ENFORCED_COHERENT, "any other file");
    // The device of the driver has no IOMMU that could enforce coherency.
    assert_eq!(test.file(bare(NAME)?)?, IS_VALID);
    Ok(())
}

fn set_counts_bound_devices() -> Result<()> {
    let test = CoreTest::open()?;
    let open_files = || Ok::<_, Errno>(test.set()? >> SET_OPEN_SHIFT);
    let iommufd = Iommufd::open()?;
    let (first, second) = (bare(NAME)?, bare(SECOND)?);
    assert_eq!(open_files()?, 0, "nothing is bound");
    first.bind(&iommufd)?;
    assert_eq!(open_files()?, 1);
    second.bind(&iommufd)?;
    assert_eq!(open_files()?, 2);
    drop(first);
    assert_eq!(open_files()?, 1);
    drop(second);
    assert_eq!(open_files()?, 0);
    Ok(())
}

fn missing_operations() -> Result<()> {
    let device = bare(NAME)?;
    let iommufd = Iommufd::open()?;
    device.bind(&iommufd)?;
    assert_eq!(device.info().errno(), Errno::EINVAL);
    assert_eq!(device.region(0).errno(), Errno::EINVAL);
    assert_eq!(raw::pread(&device, &mut [0; 4], 0), Err(Errno::EINVAL));
    assert_eq!(raw::pwrite(&device, &[0; 4], 0), Err(Errno::EINVAL));
    let mapped = Memory::from_file(&device, 0, PAGE_SIZE, true);
    assert_eq!(mapped.errno(), Errno::EINVAL);
    let ioas = iommufd.ioas()?;
    assert_eq!(device.attach(ioas)?, ioas);
    let pasid = device.attach_pasid(1, ioas);
    assert_eq!(pasid.errno(), Errno::EOPNOTSUPP);
    device.detach()?;
    Ok(())
}

fn driver_without_tokens() -> Result<()> {
    let device = bare(NAME)?;
    let bind = device.bind_with_token(&Iommufd::open()?, &[0; 16]);
    assert_eq!(bind.errno(), Errno::EINVAL);
    device.bind(&Iommufd::open()?)?;
    Ok(())
}
