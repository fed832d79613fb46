// SPDX-License-Identifier: GPL-2.0

//! Pages that are pinned by the driver of an emulated device, `vfio_pin_test`: by type 1, or by its
//! access object of an iommufd.

use super::{
    IOVA, PAGE,
    space::{
        Space,
        Way, //
    },
};
use crate::{
    base::kernel_bytes,
    measure::{
        each,
        is_wanted_any,
        print,
        samples,
        turns, //
    },
    memory::{
        Filled,
        Kind, //
    },
    request::Request,
};
use anyhow::{
    Result,
    ensure, //
};
use support::pin::{
    Ask,
    IN_C,
    Pages,
    READ,
    WRITE, //
};
use vfio_client::{
    Device,
    PAGE_SIZE, //
};

/// The maximum number of pages that a driver can pin at a time.
const COUNT: u32 = 512;
/// The number of pages to pin to measure the memory overhead.
const MANY: u32 = 16 * COUNT;
const BYTES: &str = "bytes a pinned page";
const PARTS: [&str; 3] = ["pin", "unpin", "pin+unpin"];

/// Measures in an address space without an IOMMU, then in one of `device`.
pub fn measure(way: Way, device: &str) -> Result<()> {
    for kind in [Kind::Pages, Kind::Thp] {
        let of = if kind == Kind::Thp { " of THP" } else { "" };
        let alone = format!("pin_pages(512){of}");
        let beside = format!("pin_pages(512){of} beside an IOMMU");
        let small = [
            format!("pin_pages(1){of}"),
            format!("dma_rw: read 8 bytes{of}"),
        ];
        let wanted = |name: &String| is_wanted_any(name, &PARTS);
        if ![&alone, &beside].into_iter().chain(&small).any(wanted) && !wanted(&BYTES.to_owned()) {
            continue;
        }
        let memory = Filled::new(kind, MANY as usize * PAGE_SIZE)?;
        let space = Space::open(way, IN_C)?;
        map(&space, &memory)?;
        pins(&alone, &space.member.device, COUNT)?;
        pins(&small[0], &space.member.device, 1)?;
        read(&small[1], &space.member.device)?;
        if kind == Kind::Pages {
            bytes(&space.member.device)?;
        }
        drop(space);
        let space = Space::open(way, device)?;
        let pinner = space.add(IN_C)?;
        map(&space, &memory)?;
        pins(&beside, &pinner.device, COUNT)?;
    }
    Ok(())
}

fn map(space: &Space, memory: &Filled) -> Result<()> {
    space
        .map(memory.addr, IOVA, u64::from(MANY) * PAGE)?
        .send(space)
}

fn request(ask: Ask, iova: u64, count: u32) -> Result<Request> {
    let pages = Pages {
        iova,
        count,
        prot: READ | WRITE,
        word: 0,
    };
    Request::new(ask.number(), &pages.bytes())
}

fn pins(name: &str, pinner: &Device, count: u32) -> Result<()> {
    let mut pin = request(Ask::PinOnly, IOVA, count)?;
    let mut unpin = request(Ask::UnpinStray, IOVA, count)?;
    turns(
        name,
        ["pin", "unpin"],
        3,
        || {
            let pinned = pin.send(pinner)?;
            ensure!(pinned == count as i32, "{pinned} pages were pinned");
            Ok(())
        },
        || unpin.send(pinner).map(drop),
    )
}

/// Measures what a driver's copy of some bytes takes.
fn read(name: &str, pinner: &Device) -> Result<()> {
    // The count is one of bytes, which follow the structure.
    let mut read = request(Ask::Read, IOVA, 8)?;
    each(name, 100, || read.send(pinner).map(drop))
}

/// Pins many pages, and measures the memory that this takes.
fn bytes(pinner: &Device) -> Result<()> {
    let each_part = |ask| {
        (0..MANY / COUNT).try_for_each(|nth| {
            let iova = IOVA + u64::from(nth * COUNT) * PAGE;
            request(ask, iova, COUNT)?.send(pinner).map(drop)
        })
    };
    let [taken] = samples(1, || {
        let before = kernel_bytes()?;
        each_part(Ask::PinOnly)?;
        let taken = kernel_bytes()?.saturating_sub(before);
        each_part(Ask::UnpinStray)?;
        Ok([taken / u64::from(MANY)])
    })?;
    print(BYTES, &taken);
    Ok(())
}
