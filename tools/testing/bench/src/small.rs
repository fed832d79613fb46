// SPDX-License-Identifier: GPL-2.0

//! One page, and many mappings of one page each.

use crate::{
    base::slab_bytes,
    measure::{
        each,
        median,
        print,
        time,
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
use vfio_client::{
    Bytes,
    Memory,
    PAGE_SIZE,
    request, //
};

/// Where memory is mapped for devices.
const IOVA: u64 = 1 << 32;
/// As many mappings as a busy program has.
const MANY: usize = 30_000;
/// As many mappings as a bitmap is asked for among.
const SOME: usize = 10_000;
const PAGE: u64 = PAGE_SIZE as u64;
/// Fewer than of single ones: these are many.
const REPETITIONS: usize = 3;

/// Measures with the group of `device`.
pub fn measure(device: &str) -> Result<()> {
    let attached = Attached::new(device)?;
    let memory = Filled::new(Kind::Pages, MANY * PAGE_SIZE)?;
    let mut map = Request::map(memory.addr, IOVA, PAGE)?;
    let mut unmap = Request::unmap(IOVA, PAGE)?;
    turns(
        "one page",
        ["map", "unmap"],
        200,
        || map.send(&attached.container).map(drop),
        || unmap.send_unmap(&attached.container, PAGE),
    )?;
    many(&attached, &memory)?;
    bitmap(&attached, &memory)?;
    drop(attached);
    close(device, &memory)
}

/// Maps the first `count` pages, each by a request of its own.
fn map_each(attached: &Attached, memory: &Filled, count: usize) -> Result<()> {
    let mut map = Request::map(memory.addr, IOVA, PAGE)?;
    for page in 0..count as u64 {
        map.set_u64(8, memory.addr + page * PAGE);
        map.set_u64(16, IOVA + page * PAGE);
        map.send(&attached.container)?;
    }
    Ok(())
}

fn many(attached: &Attached, memory: &Filled) -> Result<()> {
    let mut bytes = 0;
    let costs = median(REPETITIONS, || {
        let before = slab_bytes()?;
        let mapped = time(|| map_each(attached, memory, MANY))?;
        bytes = slab_bytes()?.saturating_sub(before);
        let unmapped = time(|| {
            let gone = attached.container.unmap_all()?;
            ensure!(gone == MANY as u64 * PAGE, "{gone:#x} bytes went");
            Ok(())
        })?;
        Ok([mapped, unmapped])
    })?;
    let [mapped, unmapped] = costs;
    print("30,000 pages, one by one: map", mapped);
    print("30,000 pages, one by one: UNMAP_ALL", unmapped);
    print("bytes a mapping of one page", bytes / MANY as u64);
    Ok(())
}

fn close(device: &str, memory: &Filled) -> Result<()> {
    let [closed] = median(REPETITIONS, || {
        let attached = Attached::new(device)?;
        map_each(&attached, memory, MANY)?;
        let closed = time(|| {
            drop(attached);
            Ok(())
        })?;
        Ok([closed])
    })?;
    print("30,000 pages, one by one: close", closed);
    Ok(())
}

/// Asks for the dirty pages of the last one of many mappings.
fn bitmap(attached: &Attached, memory: &Filled) -> Result<()> {
    const START: u32 = 1;
    const STOP: u32 = 2;
    const GET: u32 = 4;
    let switch = |flags| -> Result<()> {
        let bytes = Bytes::new().u32(8).u32(flags);
        Request::new(request::IOMMU_DIRTY_PAGES, &bytes)?.send(&attached.container)?;
        Ok(())
    };
    map_each(attached, memory, SOME)?;
    switch(START)?;
    let bits = Memory::anonymous(PAGE_SIZE)?;
    let bytes = Bytes::new()
        .u32(48)
        .u32(GET)
        .u64(IOVA + (SOME as u64 - 1) * PAGE)
        .u64(PAGE)
        .u64(PAGE)
        .u64(8)
        .u64(bits.addr());
    let mut get = Request::new(request::IOMMU_DIRTY_PAGES, &bytes)?;
    each("GET_BITMAP of one mapping among 10,000", 20, || {
        get.send(&attached.container)?;
        ensure!(bits.read_u64(0) == 1, "the page isn't dirty");
        Ok(())
    })?;
    switch(STOP)?;
    attached.container.unmap_all()?;
    Ok(())
}
