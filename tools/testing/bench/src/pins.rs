// SPDX-License-Identifier: GPL-2.0

//! Pages that are pinned by the driver of a device without an IOMMU, `vfio_pin_test`.

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
    Result,
    ensure, //
};
use support::{
    devices,
    pin::{
        Ask,
        IN_C,
        Pages,
        READ,
        WRITE, //
    },
};
use vfio_client::{
    Container,
    Device,
    PAGE_SIZE, //
};

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
    let beside = devices::group(device)?;
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
    let attached = Attached::new(IN_C)?;
    let device = attached.group.device(IN_C)?;
    Ok((attached, device))
}

fn request(ask: Ask, iova: u64, count: u32) -> Result<Request> {
    let pages = Pages {
        iova,
        count,
        prot: PROT,
        word: 0,
    };
    Request::new(ask.number(), &pages.bytes())
}

fn run(name: &str, container: &Container, pinner: &Device, memory: &Filled) -> Result<()> {
    let size = u64::from(COUNT) * PAGE_SIZE as u64;
    Request::map(memory.addr, IOVA, size)?.send(container)?;
    let mut pin = request(Ask::PinOnly, IOVA, COUNT)?;
    let mut unpin = request(Ask::UnpinStray, IOVA, COUNT)?;
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
        request(Ask::PinOnly, part(nth), COUNT)?.send(pinner)?;
    }
    let taken = slab_bytes()?.saturating_sub(before);
    for nth in 0..parts {
        request(Ask::UnpinStray, part(nth), COUNT)?.send(pinner)?;
    }
    print("bytes a pinned page", &[taken / u64::from(MANY)]);
    // One page in 16. A larger distance makes no difference.
    let pages = u64::from(MANY) / 16;
    let apart = |nth: u64| IOVA + nth * 16 * PAGE_SIZE as u64;
    let before = slab_bytes()?;
    for nth in 0..pages {
        request(Ask::PinOnly, apart(nth), 1)?.send(pinner)?;
    }
    let taken = slab_bytes()?.saturating_sub(before);
    for nth in 0..pages {
        request(Ask::UnpinStray, apart(nth), 1)?.send(pinner)?;
    }
    print(
        "bytes a pinned page, each far from the next",
        &[taken / pages],
    );
    Request::unmap(IOVA, size)?.send_unmap(container, size)
}
