// SPDX-License-Identifier: GPL-2.0

//! The same work in each of the ways to a DMA address space: type 1, IOMMUFD's compatibility mode,
//! and IOMMUFD itself.

mod beside;
mod pins;
mod space;

use crate::{
    base::{
        Base,
        iommu_pages,
        kernel_bytes, //
    },
    measure::{
        REPETITIONS,
        each,
        is_wanted_any,
        print,
        samples,
        settle,
        time,
        turns, //
    },
    memory::{
        Filled,
        Kind,
        MEBIBYTE,
        device_with_memory,
        give_huge_pages,
        reserve_hugetlb, //
    },
    request::Request,
};
use anyhow::{
    Context,
    Result,
    bail, //
};
pub use space::Way;
use space::{
    Map,
    Space,
    Target, //
};
use support::devices;
use vfio_client::{
    Container,
    Iommu,
    Memory,
    PAGE_SIZE, //
};

/// The IOVA of the memory.
const IOVA: u64 = 1 << 32;
const PAGE: u64 = PAGE_SIZE as u64;
/// The size of a large mapping.
const SIZE: usize = 64 * MEBIBYTE;
/// The number of mappings of a page each.
const MANY: u64 = 4096;

/// The number of measurements of large requests, after one that is discarded. They take long;
/// further rounds add more.
const TIMES: usize = 1;

const KINDS: [Kind; 5] = [
    Kind::Thp,
    Kind::Hugetlb,
    Kind::Pages,
    Kind::Fragmented,
    Kind::Memfd,
];

/// Measures with the group or the file of `device`. With `only_devices`, leaves out the requests for
/// memory: an iommufd takes them without `vfio.ko`.
pub fn measure(way: Way, device: &str, only_devices: bool) -> Result<()> {
    if !only_devices {
        requests(way, device)?;
    }
    pins::measure(way, device)?;
    attach(way, device)
}

fn requests(way: Way, device: &str) -> Result<()> {
    one_page(way, device)?;
    for kind in KINDS {
        of_kind(way, device, kind).with_context(|| kind.name())?;
    }
    for thp in [true, false] {
        unpopulated(way, device, thp)?;
    }
    many(way, device)?;
    beside::measure(way, device)
}

fn one_page(way: Way, device: &str) -> Result<()> {
    let space = Space::open(way, device)?;
    let memory = Filled::new(Kind::Pages, PAGE_SIZE)?;
    let mut map = space.map(memory.addr, IOVA, PAGE)?;
    let mut unmap = space.unmap(IOVA, PAGE)?;
    turns(
        "one page",
        ["map", "unmap"],
        200,
        || map.send(&space),
        || unmap.send(&space, PAGE),
    )
}

/// Measures one large mapping of a kind of memory, by its address and by its file. Checks before
/// and after that the device reaches the memory, and that the counters are the same.
fn of_kind(way: Way, device: &str, kind: Kind) -> Result<()> {
    let title = format!("64 MiB of {}", kind.name());
    let by_file = format!("{title}, by file");
    if ![&title, &by_file]
        .iter()
        .any(|title| is_wanted_any(title, &LARGE))
    {
        return Ok(());
    }
    if kind == Kind::Hugetlb {
        reserve_hugetlb(SIZE)?;
    }
    let base = Base::take(device)?;
    let memory = Filled::new(kind, SIZE)?;
    let check = || Space::open(way, device)?.check(&memory, SIZE as u64);
    check().context("DMA before measuring")?;
    large(way, device, &title, |space| {
        space.map(memory.addr, IOVA, SIZE as u64).map(Some)
    })?;
    if memory.file().is_some() {
        large(way, device, &by_file, |space| {
            space.map_file(&memory, IOVA, SIZE as u64)
        })?;
    }
    check().context("DMA after measuring")?;
    drop(memory);
    base.check()?;
    if kind == Kind::Hugetlb {
        reserve_hugetlb(0)?;
    }
    Ok(())
}

/// The figures of a large mapping.
const LARGE: [&str; 5] = [
    "map",
    "unmap",
    "close all",
    "kernel memory in bytes",
    "page-table pages",
];

/// Measures a mapping that `request` makes, if it can make one: the requests, closing everything
/// with the memory mapped, and the memory that the kernel needs meanwhile.
fn large(
    way: Way,
    device: &str,
    title: &str,
    request: impl Fn(&Space) -> Result<Option<Map>>,
) -> Result<()> {
    let size = SIZE as u64;
    if !is_wanted_any(title, &LARGE) || request(&Space::open(way, device)?)?.is_none() {
        return Ok(());
    }
    let figures: [Vec<u64>; LARGE.len()] = samples(TIMES, || {
        let space = Space::open(way, device)?;
        let mut map = request(&space)?.context("the request can't be made any more")?;
        let mut unmap = space.unmap(IOVA, size)?;
        settle();
        let before = (kernel_bytes()?, iommu_pages()?);
        let mapped = time(|| map.send(&space))?;
        let after = (kernel_bytes()?, iommu_pages()?);
        let unmapped = time(|| unmap.send(&space, size))?;
        map.send(&space)?;
        settle();
        let closed = time(|| {
            drop(space);
            Ok(())
        })?;
        Ok([
            mapped,
            unmapped,
            closed,
            after.0.saturating_sub(before.0),
            after.1.saturating_sub(before.1),
        ])
    })?;
    for (figure, samples) in LARGE.iter().zip(&figures) {
        print(&format!("{title}: {figure}"), samples);
    }
    Ok(())
}

/// Measures a mapping of memory that does not exist yet, as when a virtual machine starts.
fn unpopulated(way: Way, device: &str, thp: bool) -> Result<()> {
    let kind = if thp { "THP" } else { "4 KiB pages" };
    let name = format!("64 MiB of {kind} that are not there yet: map");
    if !is_wanted_any(&name, &[]) {
        return Ok(());
    }
    let size = SIZE as u64;
    let space = Space::open(way, device)?;
    give_huge_pages(thp)?;
    // Room for a first address that is a multiple of the size of a huge page.
    let memory = Memory::anonymous(SIZE + 2 * MEBIBYTE)?;
    let addr = memory.addr().next_multiple_of(2 * MEBIBYTE as u64);
    let mut map = space.map(addr, IOVA, size)?;
    let mut unmap = space.unmap(IOVA, size)?;
    let [costs] = samples(TIMES, || {
        let cost = time(|| map.send(&space))?;
        unmap.send(&space, size)?;
        memory.discard()?;
        Ok([cost])
    })?;
    print(&name, &costs);
    give_huge_pages(false)
}

/// Measures many mappings of one page each: each by its own request, all by one request, one among
/// them, and the memory that they take.
fn many(way: Way, device: &str) -> Result<()> {
    let title = "4,096 times 4 KiB";
    let among = "one page among 4,095 others";
    const FIGURES: [&str; 3] = ["map", "unmap", "unmap all at once"];
    const BYTES: &str = "bytes a mapping of one page";
    let turned = ["map", "unmap", "map+unmap"];
    if !is_wanted_any(title, &FIGURES)
        && !is_wanted_any(BYTES, &[])
        && !is_wanted_any(among, &turned)
    {
        return Ok(());
    }
    let memory = Filled::new(Kind::Pages, (MANY * PAGE) as usize)?;
    let space = Space::open(way, device)?;
    let mut map = space.map(memory.addr, IOVA, PAGE)?;
    let mut unmap = space.unmap(IOVA, PAGE)?;
    let mut unmap_all = space.unmap_all()?;
    let mut map_all = || {
        (0..MANY).try_for_each(|nth| {
            let offset = nth * PAGE;
            map.send_at(&space, memory.addr + offset, IOVA + offset)
        })
    };
    let [maps, unmaps, at_once, bytes] = samples(TIMES, || {
        let before = kernel_bytes()?;
        let mapped = time(&mut map_all)?;
        let taken = kernel_bytes()?.saturating_sub(before);
        let unmapped =
            time(|| (0..MANY).try_for_each(|nth| unmap.send_at(&space, IOVA + nth * PAGE)))?;
        map_all()?;
        settle();
        let all = time(|| unmap_all.send(&space, MANY * PAGE))?;
        Ok([mapped, unmapped, all, taken / MANY])
    })?;
    for (figure, samples) in FIGURES.iter().zip([maps, unmaps, at_once]) {
        print(&format!("{title}: {figure}"), &samples);
    }
    print(BYTES, &bytes);
    map_all()?;
    let middle = MANY / 2 * PAGE;
    unmap.send_at(&space, IOVA + middle)?;
    turns(
        among,
        ["map", "unmap"],
        200,
        || map.send_at(&space, memory.addr + middle, IOVA + middle),
        || unmap.send_at(&space, IOVA + middle),
    )
}

/// Measures opening and closing a device with all that it needs, attaching it alone where the
/// interface has a request for it, and adding a second device.
fn attach(way: Way, device: &str) -> Result<()> {
    each("open a device in a new address space, close it", 3, || {
        Space::open(way, device).map(drop)
    })?;
    match way {
        Way::Type1 => attach_group(device)?,
        // The device is attached when it is opened: no request does this alone.
        Way::Compat => {}
        Way::Iommufd => attach_file(device)?,
    }
    second(way, device)
}

const ATTACH: &str = "attach+detach";

fn attach_group(device: &str) -> Result<()> {
    let group = devices::group(device)?;
    let container = Container::open()?;
    let mut join = Request::join(&container)?;
    each(ATTACH, 20, || {
        join.send(&group)?;
        container.set_iommu(Iommu::Type1v2)?;
        Ok(group.unset_container()?)
    })
}

fn attach_file(device: &str) -> Result<()> {
    let space = Space::open(Way::Iommufd, device)?;
    let Target::Ioas(_, ioas) = space.target else {
        bail!("there is no IOAS");
    };
    let device = &space.member.device;
    device.detach()?;
    each(ATTACH, 20, || {
        device.attach(ioas)?;
        Ok(device.detach()?)
    })
}

/// Measures opening a second device in an address space that has memory, and closing it.
fn second(way: Way, device: &str) -> Result<()> {
    let name = "open a second device, beside 64 MiB of THP, close it";
    if !is_wanted_any(name, &[]) {
        return Ok(());
    }
    let other = device_with_memory()?;
    let memory = Filled::new(Kind::Thp, SIZE)?;
    let space = Space::open(way, device)?;
    space.map(memory.addr, IOVA, SIZE as u64)?.send(&space)?;
    let [costs] = samples(REPETITIONS, || Ok([time(|| space.add(&other).map(drop))?]))?;
    print(name, &costs);
    Ok(())
}
