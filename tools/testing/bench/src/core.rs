// SPDX-License-Identifier: GPL-2.0

//! Containers, groups, devices, and requests that change nothing.

use crate::{
    measure::each,
    request::{
        Attached,
        Request, //
    },
};
use anyhow::Result;
use vfio_client::{
    Bytes,
    Container,
    Group,
    Iommu,
    pci,
    request, //
};

/// Measures with the group of `device`, which must be unused.
pub fn measure(device: &str) -> Result<()> {
    each("container open+close", 100, || {
        drop(Container::open()?);
        Ok(())
    })?;
    let group = Group::open(pci::group_of(device)?)?;
    let container = Container::open()?;
    let mut join = Request::join(&container)?;
    each("group attach+detach", 20, || {
        join.send(&group)?;
        container.set_iommu(Iommu::Type1v2)?;
        Ok(group.unset_container()?)
    })?;
    drop(container);
    requests(&Attached::with(group)?, device)
}

fn requests(attached: &Attached, device: &str) -> Result<()> {
    let name = Bytes::new().raw(device.as_bytes()).fill(0, 1);
    let mut open = Request::new(request::GROUP_GET_DEVICE_FD, &name)?;
    each("GET_DEVICE_FD+close", 20, || {
        let fd = open.send(&attached.group)?;
        Ok(nix::unistd::close(fd)?)
    })?;
    let device = attached.group.device(device)?;
    let mut region = Request::info(request::DEVICE_GET_REGION_INFO)?;
    each("GET_REGION_INFO", 500, || region.send(&device).map(drop))?;
    let mut info = Request::info(request::IOMMU_GET_INFO)?;
    each("IOMMU_GET_INFO", 500, || {
        info.send(&attached.container).map(drop)
    })?;
    each("GET_API_VERSION", 500, || {
        attached.container.api_version()?;
        Ok(())
    })
}
