// SPDX-License-Identifier: GPL-2.0

//! Pages that are pinned by the driver of a device without an IOMMU, `vfio_pin_test`.

#[path = "../../modules/mdev_pin_test/interface.rs"]
#[allow(dead_code, reason = "other programs ask for the rest")]
mod interface;

use crate::{
    base::slab_bytes,
    measure::{
        print,
        turns, //
    },
    memory::{
        Filled,
        Kind, //
    },
    request::{
        Attached,
        Request, //
    },
};
use anyhow::{
    Context,
    Result,
    ensure, //
};
use interface::{
    PIN_ONLY,
    READ,
    UNPIN_STRAY,
    WRITE, //
};
use std::fs;
use vfio_client::{
    Bytes,
    Container,
    Device,
    Group,
    PAGE_SIZE, //
};

/// The name of the device and of its sysfs directory.
const NAME: &str = "vfio_pin_test.0";
/// The maximum number of pages that a driver can pin at a time.
const COUNT: u32 = 512;
/// The number of pages to pin to measure the memory overhead.
const MANY: u32 = 32 * COUNT;
const IOVA: u64 = 1 << 32;
/// Read and write access.
const PROT: u32 = READ | WRITE;

/// Measures in a container without an IOMMU, then with the IOMMU group of `device` in it.
pub fn measure(device: &str) -> Result<()> {
    let memory = Filled::new(Kind::Pages, MANY as usize * PAGE_SIZE)?;
    let (attached, pinner) = open()?;
    run("pin_pages(512)", &attached.container, &pinner, &memory)?;
    bytes(&attached.container, &pinner, &memory)?;
    let beside = Group::open(vfio_client::pci::group_of(device)?)?;
    beside.set_container(&attached.container)?;
    run(
        "pin_pages(512) beside an IOMMU",
        &attached.container,
        &pinner,
        &memory,
    )?;
    beside.unset_container()?;
    // This is last because the kernel then makes other memory huge, too.
    let huge = Filled::new(Kind::Thp, MANY as usize * PAGE_SIZE)?;
    run("pin_pages(512) of THP", &attached.container, &pinner, &huge)
}

fn open() -> Result<(Attached, Device)> {
    let path = format!("/sys/bus/platform/devices/{NAME}/iommu_group");
    let link = fs::read_link(&path).context(path)?;
    let number = link.file_name().and_then(|name| name.to_str());
    let group = Group::open(number.context("the group has no number")?.parse()?)?;
    let attached = Attached::with(group)?;
    let device = attached.group.device(NAME)?;
    Ok((attached, device))
}

fn request(nr: u32, iova: u64, count: u32) -> Result<Request> {
    Request::new(nr, &Bytes::new().u64(iova).u32(count).u32(PROT).u64(0))
}

fn run(name: &str, container: &Container, pinner: &Device, memory: &Filled) -> Result<()> {
    let size = u64::from(COUNT) * PAGE_SIZE as u64;
    Request::map(memory.addr, IOVA, size)?.send(container)?;
    let mut pin = request(PIN_ONLY, IOVA, COUNT)?;
    let mut unpin = request(UNPIN_STRAY, IOVA, COUNT)?;
    turns(
        name,
        ["pin", "unpin"],
        10,
        || {
            let pinned = pin.send(pinner)?;
            ensure!(pinned == COUNT as i32, "{pinned} pages were pinned");
            Ok(())
        },
        || unpin.send(pinner).map(drop),
    )?;
    Request::unmap(IOVA, size)?.send_unmap(container, size)
}

/// Pins many pages, and measures the memory that this takes.
fn bytes(container: &Container, pinner: &Device, memory: &Filled) -> Result<()> {
    let size = u64::from(MANY) * PAGE_SIZE as u64;
    Request::map(memory.addr, IOVA, size)?.send(container)?;
    let part = |nth: u32| IOVA + u64::from(nth * COUNT) * PAGE_SIZE as u64;
    let parts = MANY / COUNT;
    let before = slab_bytes()?;
    for nth in 0..parts {
        request(PIN_ONLY, part(nth), COUNT)?.send(pinner)?;
    }
    let taken = slab_bytes()?.saturating_sub(before);
    for nth in 0..parts {
        request(UNPIN_STRAY, part(nth), COUNT)?.send(pinner)?;
    }
    print("bytes a pinned page", &[taken / u64::from(MANY)]);
    // One page in 16. A larger distance makes no difference.
    let pages = u64::from(MANY) / 16;
    let apart = |nth: u64| IOVA + nth * 16 * PAGE_SIZE as u64;
    let before = slab_bytes()?;
    for nth in 0..pages {
        request(PIN_ONLY, apart(nth), 1)?.send(pinner)?;
    }
    let taken = slab_bytes()?.saturating_sub(before);
    for nth in 0..pages {
        request(UNPIN_STRAY, apart(nth), 1)?.send(pinner)?;
    }
    print(
        "bytes a pinned page, each far from the next",
        &[taken / pages],
    );
    Request::unmap(IOVA, size)?.send_unmap(container, size)
}
