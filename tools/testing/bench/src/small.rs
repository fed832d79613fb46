// SPDX-License-Identifier: GPL-2.0

//! Mappings of one page each: a single one, many, and the dirty pages of some.

use crate::{
    base::slab_bytes,
    measure::{
        each,
        is_wanted,
        print,
        samples,
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
use std::ops::Range;
use vfio_client::{
    Bytes,
    Memory,
    PAGE_SIZE,
    request, //
};

/// The IOVA of the memory.
const IOVA: u64 = 1 << 32;
/// The number of mappings of a busy program.
const MANY: u64 = 30_000;
/// One less than the default `vfio_iommu_type1.dma_entry_limit`.
const OTHERS: u64 = 65_534;
/// The numbers of mappings while a bitmap is requested.
const BITMAPS: [(u64, &str); 5] = [
    (1, "1"),
    (10, "10"),
    (100, "100"),
    (1_000, "1,000"),
    (10_000, "10,000"),
];
const PAGE: u64 = PAGE_SIZE as u64;

/// The flags of DIRTY_PAGES.
const START: u32 = 1;
const STOP: u32 = 2;
const GET: u32 = 4;

/// Measures with the group of `device`.
pub fn measure(device: &str) -> Result<()> {
    let attached = Attached::new(device)?;
    let memory = Filled::new(Kind::Pages, (MANY * PAGE) as usize)?;
    let mut map = Request::map(memory.addr, IOVA, PAGE)?;
    let mut unmap = Request::unmap(IOVA, PAGE)?;
    turns(
        "one page",
        ["map", "unmap"],
        200,
        || map.send(&attached.container).map(drop),
        || unmap.send_unmap(&attached.container, PAGE),
    )?;
    among_many(&attached, &memory)?;
    bytes(&attached, &memory)?;
    bitmaps(&attached, &memory)
}

/// Maps and unmaps a page in the middle of as many mappings as a container may have.
fn among_many(attached: &Attached, memory: &Filled) -> Result<()> {
    let name = "one page among 65,534 others";
    let parts = ["map", "unmap", "map+unmap"];
    if !parts
        .iter()
        .any(|part| is_wanted(&format!("{name}: {part}")))
    {
        return Ok(());
    }
    let iova = IOVA + OTHERS / 2 * PAGE;
    let mut map = Request::map(memory.addr, IOVA, PAGE)?;
    for page in (0..=OTHERS).filter(|page| *page != OTHERS / 2) {
        map.set_u64(8, memory.addr + page % MANY * PAGE);
        map.set_u64(16, IOVA + page * PAGE);
        map.send(&attached.container)?;
    }
    map.set_u64(8, memory.addr);
    map.set_u64(16, iova);
    let mut unmap = Request::unmap(iova, PAGE)?;
    turns(
        name,
        ["map", "unmap"],
        200,
        || map.send(&attached.container).map(drop),
        || unmap.send_unmap(&attached.container, PAGE),
    )?;
    attached.container.unmap_all()?;
    Ok(())
}

/// Maps the first `count` pages, each by its own request.
fn map_each(attached: &Attached, memory: &Filled, count: u64) -> Result<()> {
    let mut map = Request::map(memory.addr, IOVA, PAGE)?;
    for page in 0..count {
        map.set_u64(8, memory.addr + page * PAGE);
        map.set_u64(16, IOVA + page * PAGE);
        map.send(&attached.container)?;
    }
    Ok(())
}

/// Measures the memory overhead of many mappings, after a first run that fills caches.
fn bytes(attached: &Attached, memory: &Filled) -> Result<()> {
    let name = "bytes a mapping of one page";
    if !is_wanted(name) {
        return Ok(());
    }
    let [taken] = samples(2, || {
        let before = slab_bytes()?;
        map_each(attached, memory, MANY)?;
        let taken = slab_bytes()?.saturating_sub(before);
        attached.container.unmap_all()?;
        Ok([taken / MANY])
    })?;
    print(name, &taken);
    Ok(())
}

/// Measures GET_BITMAP for the last one of some mappings, and for all of them.
fn bitmaps(attached: &Attached, memory: &Filled) -> Result<()> {
    for (count, text) in BITMAPS {
        let one = format!("GET_BITMAP of one mapping among {text}");
        let all = format!("GET_BITMAP over {text} mappings");
        if !is_wanted(&one) && !is_wanted(&all) {
            continue;
        }
        map_each(attached, memory, count)?;
        switch(attached, START)?;
        bitmap(attached, &one, count - 1..count)?;
        bitmap(attached, &all, 0..count)?;
        switch(attached, STOP)?;
        attached.container.unmap_all()?;
    }
    Ok(())
}

fn switch(attached: &Attached, flags: u32) -> Result<()> {
    let bytes = Bytes::new().u32(8).u32(flags);
    Request::new(request::IOMMU_DIRTY_PAGES, &bytes)?.send(&attached.container)?;
    Ok(())
}

/// Measures GET_BITMAP for a range of pages, all of which are dirty.
fn bitmap(attached: &Attached, name: &str, pages: Range<u64>) -> Result<()> {
    let count = pages.end - pages.start;
    let bits = Memory::anonymous(PAGE_SIZE)?;
    let bytes = Bytes::new()
        .u32(48)
        .u32(GET)
        .u64(IOVA + pages.start * PAGE)
        .u64(count * PAGE)
        .u64(PAGE)
        .u64(count.div_ceil(64) * 8)
        .u64(bits.addr());
    let mut get = Request::new(request::IOMMU_DIRTY_PAGES, &bytes)?;
    each(name, 20, || {
        get.send(&attached.container)?;
        // Only the bits of the range matter.
        let wanted = u64::MAX >> (63 - (count - 1) % 64);
        let found = bits.read_u64(((count - 1) / 64 * 8) as usize) & wanted;
        ensure!(found == wanted, "{found:#x} are dirty, not {wanted:#x}");
        Ok(())
    })
}
