// SPDX-License-Identifier: GPL-2.0

//! Accounting of pages that a driver pins, and whether they count as dirty.

use crate::{
    cgroup::Cgroup,
    harness::{
        Failure,
        cases, //
    },
    helper::Helper,
    leak::locked_kib,
    pin::{
        IOVA,
        Pinning,
        READ,
        WRITE, //
        mapped,
    },
};
use anyhow::{
    Result,
    ensure, //
};
use vfio_client::{
    Arena,
    Bytes,
    Container,
    Errno,
    Filling,
    MapFlags,
    Memory,
    PAGE_SIZE,
    edu::Edu,
    pci::Config,
    raw,
    request,
    uapi::VFIO_PCI_BAR0_REGION_INDEX, //
};

cases! {
    t_a1_each_page_once,
    t_a1_reserved_pages,
    t_a2_and_a3_limit,
    t_a2_right_at_the_time_of_mapping,
    t_a4_hardware_joins,
    t_a4_pinned_beside_hardware,
    t_a6_hardware_leaves,
    t_a6_hardware_leaves_and_comes_back,
    t_a6_memory_in_place_of_registers,
    t_d5_only_what_was_pinned_or_written,
    t_d6_pinned_pages_stay_dirty,
    t_d6_read_only_pins,
    t_d8_hardware_leaves,
    t_d9_hardware_beside_it,
    unmap_with_bitmap,
    #[memory_cgroups_on_our_type1]
    bitmaps_are_charged_to_the_mapper,
}

const PAGE: u64 = PAGE_SIZE as u64;

fn t_a1_each_page_once() -> Result<()> {
    let (pinning, memory) = mapped(16)?;
    let pinner = &pinning.pinner;
    for i in 0..16 {
        pinner.pin(IOVA + i * PAGE, 1, READ)?;
        pinner.pin(IOVA, i as u32 + 1, READ)?;
        assert_eq!(locked_kib(), 4 * (i + 1));
    }
    // The same memory at another address is charged again.
    pinning
        .container
        .map(0x80_0000, &memory, MapFlags::ReadWrite)?;
    pinner.pin(0x80_0000, 4, READ)?;
    assert_eq!(locked_kib(), 80);
    pinner.unpin(IOVA + 3 * PAGE, 5)?;
    assert_eq!(locked_kib(), 60);
    pinner.unpin(0, u32::MAX)?;
    assert_eq!(locked_kib(), 0);
    Ok(())
}

/// Device registers are not memory of the process.
fn t_a1_reserved_pages() -> Result<()> {
    let setup = crate::env::Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    let pinning = Pinning::new()?;
    pinning
        .container
        .map(IOVA, edu.registers(), MapFlags::ReadWrite)?;
    let pin = pinning.pinner.pin(IOVA, 1, READ);
    assert_eq!(pin.errno(), Errno::EINVAL, "there is no page");
    // The driver may read them like the process. The width of the accesses is unspecified.
    assert!(pinning.pinner.read(IOVA, 4).is_ok());
    assert_eq!(locked_kib(), 0);
    Ok(())
}

fn t_a2_and_a3_limit() -> Result<()> {
    let mut helper = Helper::spawn(&["pin-limit"], &[])?;
    // The result of each call and the locked memory after it.
    for expected in [
        "4 pages: Ok(4), 16 KiB",
        "one more: Err(ENOMEM), 16 KiB",
        "again: Ok(4), 16 KiB",
        "two more at once: Err(ENOMEM), 16 KiB",
        "in the place of another: Ok(1), 16 KiB",
        "after the limit was raised: Ok(4), 32 KiB",
        "after it was lowered: Err(ENOMEM), 32 KiB",
        "write by the driver: Ok(0), 32 KiB",
    ] {
        assert_eq!(helper.line()?, expected);
    }
    helper.finish()
}

fn t_a2_right_at_the_time_of_mapping() -> Result<()> {
    let mut helper = Helper::spawn(&["pin-right"], &[])?;
    for expected in [
        "mapped with the right: Ok(8), 32 KiB",
        "mapped without it: Err(ENOMEM), 32 KiB",
    ] {
        assert_eq!(helper.line()?, expected);
    }
    helper.finish()
}

fn t_a4_hardware_joins() -> Result<()> {
    let (pinning, _memory) = mapped(16)?;
    pinning.pinner.pin(IOVA, 4, READ)?;
    assert_eq!(locked_kib(), 16);
    let (group, device) = pinning.join_edu()?;
    assert_eq!(locked_kib(), 64, "not 80");
    drop(device);
    drop(group);
    assert_eq!(locked_kib(), 16);
    Ok(())
}

fn t_a4_pinned_beside_hardware() -> Result<()> {
    let (pinning, _memory) = mapped(16)?;
    let (_group, device) = pinning.join_edu()?;
    let pinner = &pinning.pinner;
    assert_eq!(locked_kib(), 64);
    pinner.pin(IOVA, 8, READ)?;
    assert_eq!(locked_kib(), 64, "they are charged already");
    pinner.unpin(IOVA, 4)?;
    assert_eq!(locked_kib(), 64);
    Edu::new(&device)?.load(IOVA, PAGE)?;
    assert_eq!(pinning.container.unmap(IOVA, 16 * PAGE)?, 16 * PAGE);
    assert_eq!((locked_kib(), pinner.pinned()?), (0, 0));
    Ok(())
}

fn t_a6_hardware_leaves() -> Result<()> {
    let (pinning, _memory) = mapped(16)?;
    let (group, device) = pinning.join_edu()?;
    pinning.pinner.pin(IOVA + 3 * PAGE, 5, READ)?;
    assert_eq!(locked_kib(), 64);
    drop(device);
    group.unset_container()?;
    assert_eq!(locked_kib(), 20);
    pinning.pinner.unpin(IOVA, 5)?;
    assert_eq!(locked_kib(), 12);
    drop(pinning.pinner);
    assert_eq!(locked_kib(), 0);
    Ok(())
}

fn t_a6_hardware_leaves_and_comes_back() -> Result<()> {
    let (pinning, memory) = mapped(16)?;
    let (group, device) = pinning.join_edu()?;
    drop(device);
    pinning.pinner.pin(IOVA, 2, READ | WRITE)?;
    for _ in 0..3 {
        group.unset_container()?;
        assert_eq!(locked_kib(), 8);
        group.set_container(&pinning.container)?;
        assert_eq!(locked_kib(), 64);
    }
    let device = group.device(crate::env::EDU)?;
    let edu = Edu::new(&device)?;
    pinning.pinner.poke(IOVA, 0x4242)?;
    edu.load(IOVA, PAGE)?;
    edu.store(IOVA + 8 * PAGE, PAGE)?;
    assert_eq!(memory.read_u64(8 * PAGE_SIZE), 0x4242);
    Ok(())
}

/// Device registers are not charged, and neither is memory that a driver pins beside hardware. When
/// the hardware leaves, the pinned memory is charged.
fn t_a6_memory_in_place_of_registers() -> Result<()> {
    const SIZE: usize = 16 * PAGE_SIZE;
    let pinning = Pinning::new()?;
    let (group, device) = pinning.join_edu()?;
    Config::of(&device)?.enable()?;
    let registers = device.region(VFIO_PCI_BAR0_REGION_INDEX)?;
    let mut arena = Arena::new(1 << 36, SIZE)?;
    arena.fill_from(0..SIZE, &device, registers.offset)?;
    pinning
        .container
        .map_arena(IOVA, &arena, 0..SIZE, MapFlags::ReadWrite)?;
    arena.fill(0..SIZE, Filling::Private)?;
    pinning.pinner.pin(IOVA, 4, READ)?;
    assert_eq!(locked_kib(), 0);
    drop(device);
    group.unset_container()?;
    assert_eq!(locked_kib(), 16);
    pinning.pinner.pin(IOVA + 8 * PAGE, 2, READ)?;
    assert_eq!(locked_kib(), 24);
    pinning.pinner.unpin(IOVA, 4)?;
    assert_eq!(locked_kib(), 8, "the other pages stay charged");
    drop(pinning.pinner);
    assert_eq!(locked_kib(), 0);
    Ok(())
}

pub(super) const START: u32 = 1;
const STOP: u32 = 2;
const GET: u32 = 4;

pub(super) fn track(container: &Container, flags: u32) -> Result<()> {
    let mut bytes = Bytes::new().u32(8).u32(flags);
    raw::bytes(container, request::IOMMU_DIRTY_PAGES, &mut bytes)?;
    Ok(())
}

/// Returns the dirty bitmap of the first 64 pages, one bit per page.
pub(super) fn written(container: &Container, pages: u64) -> Result<u64> {
    let bits = Memory::anonymous(PAGE_SIZE)?;
    let mut get = Bytes::new()
        .u32(48)
        .u32(GET)
        .u64(IOVA)
        .u64(pages * PAGE)
        .u64(PAGE)
        .u64(8)
        .u64(bits.addr());
    raw::bytes(container, request::IOMMU_DIRTY_PAGES, &mut get)?;
    Ok(bits.read_u64(0))
}

fn t_d5_only_what_was_pinned_or_written() -> Result<()> {
    let (pinning, memory) = mapped(64)?;
    let container = &pinning.container;
    track(container, START)?;
    assert_eq!(written(container, 64)?, 0, "nobody could write");
    memory.fill(0, memory.len(), 1);
    assert_eq!(
        written(container, 64)?,
        0,
        "what the process does does not count"
    );
    pinning.pinner.pin(IOVA + 4 * PAGE, 2, READ | WRITE)?;
    pinning.pinner.unpin(IOVA + 4 * PAGE, 2)?;
    pinning.pinner.write(IOVA + 10 * PAGE - 1, b"ab")?;
    pinning.pinner.read(IOVA + 20 * PAGE, 100)?;
    assert_eq!(written(container, 64)?, (0b11 << 4) | (0b11 << 9));
    assert_eq!(written(container, 64)?, 0, "reading it clears it");
    pinning.pinner.write(IOVA + 63 * PAGE, b"a")?;
    track(container, STOP)?;
    track(container, START)?;
    assert_eq!(written(container, 64)?, 0, "from anew");
    Ok(())
}

fn t_d6_pinned_pages_stay_dirty() -> Result<()> {
    let (pinning, _memory) = mapped(64)?;
    let container = &pinning.container;
    pinning.pinner.pin(IOVA + 7 * PAGE, 1, READ | WRITE)?;
    track(container, START)?;
    pinning.pinner.pin(IOVA + 60 * PAGE, 4, READ | WRITE)?;
    for _ in 0..3 {
        assert_eq!(written(container, 64)?, (0xf << 60) | (1 << 7));
    }
    pinning.pinner.unpin(IOVA + 61 * PAGE, 1)?;
    assert_eq!(written(container, 64)?, (0xf << 60) | (1 << 7), "once more");
    assert_eq!(written(container, 64)?, (0xd << 60) | (1 << 7));
    pinning.pinner.unpin(IOVA, 64)?;
    assert_eq!(written(container, 64)?, (0xd << 60) | (1 << 7));
    assert_eq!(written(container, 64)?, 0);
    Ok(())
}

/// Pages that a driver pins only for reading count as dirty, too.
fn t_d6_read_only_pins() -> Result<()> {
    let (pinning, _memory) = mapped(64)?;
    track(&pinning.container, START)?;
    pinning.pinner.pin(IOVA, 1, READ)?;
    assert_eq!(written(&pinning.container, 64)?, 1);
    Ok(())
}

fn t_d8_hardware_leaves() -> Result<()> {
    let (pinning, _memory) = mapped(64)?;
    let (group, device) = pinning.join_edu()?;
    let container = &pinning.container;
    track(container, START)?;
    pinning.pinner.pin(IOVA + 3 * PAGE, 1, READ | WRITE)?;
    assert_eq!(written(container, 64)?, u64::MAX);
    drop(device);
    group.unset_container()?;
    assert_eq!(
        written(container, 64)?,
        u64::MAX,
        "it may have written anywhere"
    );
    assert_eq!(written(container, 64)?, 1 << 3);
    Ok(())
}

fn t_d9_hardware_beside_it() -> Result<()> {
    let (pinning, _memory) = mapped(64)?;
    let container = &pinning.container;
    track(container, START)?;
    assert_eq!(written(container, 64)?, 0);
    let (_group, _device) = pinning.join_edu()?;
    for _ in 0..2 {
        assert_eq!(
            written(container, 64)?,
            u64::MAX,
            "a device may write anywhere"
        );
        // Reports of the driver do not cover what the device writes.
        pinning.pinner.pin(IOVA, 1, READ | WRITE)?;
    }
    Ok(())
}

fn unmap_with_bitmap() -> Result<()> {
    let (pinning, _memory) = mapped(64)?;
    track(&pinning.container, START)?;
    pinning.pinner.write(IOVA + 5 * PAGE, b"x")?;
    pinning.pinner.pin(IOVA + 9 * PAGE, 2, READ | WRITE)?;
    let bits = Memory::anonymous(PAGE_SIZE)?;
    let mut unmap = Bytes::new()
        .u32(48)
        .u32(1)
        .u64(IOVA)
        .u64(64 * PAGE)
        .u64(PAGE)
        .u64(8)
        .u64(bits.addr());
    raw::bytes(&pinning.container, request::IOMMU_UNMAP_DMA, &mut unmap)?;
    assert_eq!(unmap.get_u64(16), 64 * PAGE);
    assert_eq!(bits.read_u64(0), (1 << 5) | (0b11 << 9));
    assert_eq!((pinning.pinner.pinned()?, locked_kib()), (0, 0));
    Ok(())
}

/// The bitmap is charged to the cgroup in which the process was when it mapped, not to that of the
/// thread in which the driver writes or unpins.
fn bitmaps_are_charged_to_the_mapper() -> Result<()> {
    const BITMAP: u64 = 2 << 20;
    const KERNEL: &str = "kernel";
    let cgroup = Cgroup::new("guest-tests")?;
    let pinning = Pinning::new()?;
    let (pinner, container) = (&pinning.pinner, &pinning.container);
    // The process has memory for the first page only; the driver uses no other.
    let size = BITMAP as usize * 8 * PAGE_SIZE;
    let mut arena = Arena::new(1 << 36, size)?;
    arena.fill(0..PAGE_SIZE, Filling::Private)?;
    cgroup.during(|| Ok(container.map_arena(IOVA, &arena, 0..size, MapFlags::ReadWrite)?))?;
    for writes in [true, false] {
        track(container, START)?;
        if writes {
            pinner.write(IOVA, b"x")?;
        } else {
            pinner.pin(IOVA, 1, READ | WRITE)?;
            pinner.unpin(IOVA, 1)?;
        }
        let charged = cgroup.wait_for(KERNEL, |bytes| bytes >= BITMAP)?;
        ensure!(charged >= BITMAP, "only {charged} bytes are charged");
        track(container, STOP)?;
        let left = cgroup.wait_for(KERNEL, |bytes| bytes < BITMAP)?;
        ensure!(left < BITMAP, "{left} bytes stay charged");
    }
    Ok(())
}

/// The helper processes of these cases.
pub mod helper {
    use super::*;
    use crate::helper::{
        say,
        without_ipc_lock, //
    };
    use nix::sys::resource::{
        Resource,
        setrlimit, //
    };

    fn tell(what: &str, result: Result<i32, Errno>) {
        say(format!("{what}: {result:?}, {} KiB", locked_kib()));
    }

    fn set_limit(pages: u64) -> Result<()> {
        // The hard limit stays high enough to raise the soft limit again.
        setrlimit(Resource::RLIMIT_MEMLOCK, pages * PAGE, 100 * PAGE)?;
        Ok(())
    }

    /// Pins pages up to the limit and beyond.
    pub fn pin_limit() -> Result<()> {
        without_ipc_lock(100 * PAGE)?;
        set_limit(4)?;
        let (pinning, _memory) = mapped(64)?;
        let pin = |at: u64, count| pinning.pinner.pin(IOVA + at * PAGE, count, READ);
        let count = |result: Result<(i32, u64), Errno>| result.map(|(count, _)| count);
        tell("4 pages", count(pin(0, 4)));
        tell("one more", count(pin(4, 1)));
        tell("again", count(pin(0, 4)));
        tell("two more at once", count(pin(2, 4)));
        pinning.pinner.unpin(IOVA, 1)?;
        tell("in the place of another", count(pin(9, 1)));
        set_limit(8)?;
        tell("after the limit was raised", count(pin(10, 4)));
        set_limit(4)?;
        tell("after it was lowered", count(pin(20, 1)));
        tell(
            "write by the driver",
            pinning.pinner.write(IOVA + 30 * PAGE, b"x"),
        );
        Ok(())
    }

    /// Maps memory with CAP_IPC_LOCK and without it.
    pub fn pin_right() -> Result<()> {
        let (pinning, memory) = mapped(8)?;
        without_ipc_lock(4 * PAGE)?;
        pinning
            .container
            .map(0x80_0000, &memory, MapFlags::ReadWrite)?;
        let pin = |at| pinning.pinner.pin(at, 8, READ).map(|(count, _)| count);
        tell("mapped with the right", pin(IOVA));
        tell("mapped without it", pin(0x80_0000));
        Ok(())
    }
}
