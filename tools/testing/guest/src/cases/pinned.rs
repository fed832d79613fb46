// SPDX-License-Identifier: GPL-2.0

//! Accounting of pages that a driver pins, and whether they count as dirty.

use crate::{
    env::{
        self,
        EDU,
        EMPTY, //
    },
    harness::{
        Failure,
        cases, //
    },
    pin::{
        IOVA,
        Pinning,
        READ,
        WRITE,
        mapped, //
    },
};
use anyhow::{
    Result,
    ensure, //
};
use std::{
    sync::atomic::{
        AtomicBool,
        Ordering::Relaxed, //
    },
    thread,
};
use support::{
    PAGE,
    cgroup::Cgroup,
    helper::Helper,
    machine::locked_pages,
    requests::{
        Bitmap,
        DirtyPages,
        UnmapDma, //
    },
};
use vfio_client::{
    Arena,
    Container,
    Errno,
    Filling,
    IommuInfo,
    MapFlags,
    Memory,
    PAGE_SIZE,
    edu::{
        self,
        Edu, //
    },
    pci::Config,
    uapi::VFIO_PCI_BAR0_REGION_INDEX, //
};

cases! {
    #[rows("T-A1")] each_page_is_charged_once,
    #[rows("T-A1")] registers_cannot_be_pinned,
    #[rows("T-A2", "T-A3")] memlock_limit_is_enforced,
    #[rows("T-A2")] cap_ipc_lock_at_time_of_mapping_counts,
    #[rows("T-A4")] pinned_pages_are_not_charged_again_when_hardware_joins,
    #[rows("T-A4")] pages_pinned_beside_hardware_are_not_charged,
    #[rows("T-A6")] pinned_pages_stay_charged_when_hardware_leaves,
    #[rows("T-A6")] hardware_leaves_and_rejoins,
    #[rows("T-A6")] memory_that_replaces_registers_is_charged,
    info_is_consistent_while_hardware_leaves,
    #[requires(type1(Rust))] hardware_that_does_not_translate_a_mapping_cannot_join,
    #[rows("T-D5")] only_pinned_or_written_pages_are_dirty,
    #[rows("T-D6")] pinned_pages_stay_dirty,
    #[rows("T-D6")] read_only_pins_are_dirty,
    #[rows("T-D8")] all_pages_are_dirty_when_hardware_leaves,
    #[rows("T-D9")] all_pages_are_dirty_beside_hardware,
    unmap_returns_dirty_bitmap,
    #[requires(memory_cgroups, type1(Rust))] bitmaps_are_charged_to_cgroup_of_mapper,
    #[requires(memory_cgroups, driver(Rust))] records_of_pins_are_charged_to_cgroup_of_opener,
}

fn each_page_is_charged_once() -> Result<()> {
    let (pinning, memory) = mapped(16)?;
    let pinner = &pinning.pinner;
    for i in 0..16 {
        pinner.pin(IOVA + i * PAGE, 1, READ)?;
        pinner.pin(IOVA, i as u32 + 1, READ)?;
        assert_eq!(locked_pages(), i + 1);
    }
    // The same memory at another address is charged again.
    pinning
        .container
        .map(0x80_0000, &memory, MapFlags::ReadWrite)?;
    pinner.pin(0x80_0000, 4, READ)?;
    assert_eq!(locked_pages(), 20);
    pinner.unpin(IOVA + 3 * PAGE, 5)?;
    assert_eq!(locked_pages(), 15);
    pinner.unpin(0, u32::MAX)?;
    assert_eq!(locked_pages(), 0);
    Ok(())
}

/// Device registers are not memory of the process.
fn registers_cannot_be_pinned() -> Result<()> {
    let setup = env::Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    let pinning = Pinning::new()?;
    pinning
        .container
        .map(IOVA, edu.registers(), MapFlags::ReadWrite)?;
    let pin = pinning.pinner.pin(IOVA, 1, READ);
    assert_eq!(pin.errno(), Errno::EINVAL, "registers have no pages");
    // The driver may read them like the process. The width of the accesses is unspecified.
    assert!(pinning.pinner.read(IOVA, 4).is_ok());
    assert_eq!(locked_pages(), 0);
    Ok(())
}

fn memlock_limit_is_enforced() -> Result<()> {
    let mut helper = Helper::spawn(&["pin-limit"], &[])?;
    // The result of each call and the locked memory after it.
    for expected in [
        "pin 4 pages: Ok(4), 4 pages charged",
        "pin one more: Err(ENOMEM), 4 pages charged",
        "pin the same pages: Ok(4), 4 pages charged",
        "pin two more: Err(ENOMEM), 4 pages charged",
        "pin one after unpinning one: Ok(1), 4 pages charged",
        "pin with a higher limit: Ok(4), 8 pages charged",
        "pin with a lower limit: Err(ENOMEM), 8 pages charged",
        "write by the driver: Ok(0), 8 pages charged",
    ] {
        assert_eq!(helper.line()?, expected);
    }
    helper.finish()
}

fn cap_ipc_lock_at_time_of_mapping_counts() -> Result<()> {
    let mut helper = Helper::spawn(&["pin-right"], &[])?;
    for expected in [
        "mapped with CAP_IPC_LOCK: Ok(8), 8 pages charged",
        "mapped without CAP_IPC_LOCK: Err(ENOMEM), 8 pages charged",
    ] {
        assert_eq!(helper.line()?, expected);
    }
    helper.finish()
}

fn pinned_pages_are_not_charged_again_when_hardware_joins() -> Result<()> {
    let (pinning, _memory) = mapped(16)?;
    pinning.pinner.pin(IOVA, 4, READ)?;
    assert_eq!(locked_pages(), 4);
    let (group, device) = pinning.join_edu()?;
    assert_eq!(locked_pages(), 16, "the pinned pages are charged once");
    drop(device);
    drop(group);
    assert_eq!(locked_pages(), 4);
    Ok(())
}

fn pages_pinned_beside_hardware_are_not_charged() -> Result<()> {
    let (pinning, _memory) = mapped(16)?;
    let (_group, device) = pinning.join_edu()?;
    let pinner = &pinning.pinner;
    assert_eq!(locked_pages(), 16);
    pinner.pin(IOVA, 8, READ)?;
    assert_eq!(locked_pages(), 16, "they are charged already");
    pinner.unpin(IOVA, 4)?;
    assert_eq!(locked_pages(), 16);
    Edu::new(&device)?.load(IOVA, edu::MEMORY as u64)?;
    assert_eq!(pinning.container.unmap(IOVA, 16 * PAGE)?, 16 * PAGE);
    assert_eq!((locked_pages(), pinner.pinned()?), (0, 0));
    Ok(())
}

fn pinned_pages_stay_charged_when_hardware_leaves() -> Result<()> {
    let (pinning, _memory) = mapped(16)?;
    let (group, device) = pinning.join_edu()?;
    pinning.pinner.pin(IOVA + 3 * PAGE, 5, READ)?;
    assert_eq!(locked_pages(), 16);
    drop(device);
    group.unset_container()?;
    assert_eq!(locked_pages(), 5);
    pinning.pinner.unpin(IOVA, 5)?;
    assert_eq!(locked_pages(), 3);
    drop(pinning.pinner);
    assert_eq!(locked_pages(), 0);
    Ok(())
}

fn hardware_leaves_and_rejoins() -> Result<()> {
    let (pinning, memory) = mapped(16)?;
    let (group, device) = pinning.join_edu()?;
    drop(device);
    pinning.pinner.pin(IOVA, 2, READ | WRITE)?;
    for _ in 0..3 {
        group.unset_container()?;
        assert_eq!(locked_pages(), 2);
        group.set_container(&pinning.container)?;
        assert_eq!(locked_pages(), 16);
    }
    let device = group.device(EDU)?;
    let edu = Edu::new(&device)?;
    pinning.pinner.poke(IOVA, 0x4242)?;
    edu.load(IOVA, edu::MEMORY as u64)?;
    edu.store(IOVA + 8 * PAGE, edu::MEMORY as u64)?;
    assert_eq!(memory.read_u64(8 * PAGE_SIZE), 0x4242);
    Ok(())
}

/// `VFIO_IOMMU_GET_INFO` reports either the page sizes and the ranges of the hardware, or neither.
fn info_is_consistent_while_hardware_leaves() -> Result<()> {
    let pinning = Pinning::new()?;
    let without = pinning.container.info()?;
    let (group, device) = pinning.join_edu()?;
    drop(device);
    let with = pinning.container.info()?;
    let hardware =
        |info: &IommuInfo| (info.page_sizes, info.ranges()) == (with.page_sizes, with.ranges());
    // Once hardware has left, the range is that of all addresses.
    let none =
        |info: &IommuInfo| info.page_sizes == without.page_sizes && info.ranges() != with.ranges();
    ensure!(with.page_sizes != without.page_sizes || without.ranges() != with.ranges());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            for _ in 0..300 {
                group.unset_container()?;
                group.set_container(&pinning.container)?;
            }
            done.store(true, Relaxed);
            anyhow::Ok(())
        });
        while !done.load(Relaxed) && !other.is_finished() {
            let info = pinning.container.info()?;
            ensure!(hardware(&info) || none(&info), "{info:?}");
        }
        other.join().expect("the thread does not panic")
    })
}

/// A driver of an IOMMU may map addresses beyond the aperture of the IOMMU; virtio-iommu does.
fn hardware_that_does_not_translate_a_mapping_cannot_join() -> Result<()> {
    let (pinning, memory) = mapped(1)?;
    let (group, device) = pinning.join_edu()?;
    drop(device);
    let ranges = pinning.container.info()?.ranges();
    let end = ranges
        .iter()
        .map(|range| range.end)
        .max()
        .unwrap_or_default();
    if end == u64::MAX {
        // Each address is translated, as by AMD's IOMMU.
        return Ok(());
    }
    drop((group, pinning));
    let pinning = Pinning::new()?;
    pinning
        .container
        .map(end + 1, &memory, MapFlags::ReadWrite)?;
    let group = env::group(EDU)?;
    ensure!(
        group.set_container(&pinning.container).is_err(),
        "the group joined"
    );
    assert_eq!(locked_pages(), 0);
    pinning.container.unmap(end + 1, PAGE)?;
    group.set_container(&pinning.container)?;
    Ok(())
}

/// Device registers are not charged, and neither is memory that a driver pins beside hardware. When
/// the hardware leaves, the pinned memory is charged.
fn memory_that_replaces_registers_is_charged() -> Result<()> {
    const SIZE: usize = 16 * PAGE_SIZE;
    let pinning = Pinning::new()?;
    let (group, device) = pinning.join_edu()?;
    Config::of(&device)?.enable()?;
    let registers = device.region(VFIO_PCI_BAR0_REGION_INDEX)?;
    let mut arena = Arena::new(EMPTY, SIZE)?;
    arena.fill_from(0..SIZE, &device, registers.offset)?;
    pinning
        .container
        .map_arena(IOVA, &arena, 0..SIZE, MapFlags::ReadWrite)?;
    arena.fill(0..SIZE, Filling::Private)?;
    pinning.pinner.pin(IOVA, 4, READ)?;
    assert_eq!(locked_pages(), 0);
    drop(device);
    group.unset_container()?;
    assert_eq!(locked_pages(), 4);
    pinning.pinner.pin(IOVA + 8 * PAGE, 2, READ)?;
    assert_eq!(locked_pages(), 6);
    pinning.pinner.unpin(IOVA, 4)?;
    assert_eq!(locked_pages(), 2, "the other pages stay charged");
    drop(pinning.pinner);
    assert_eq!(locked_pages(), 0);
    Ok(())
}

/// Starts or stops dirty page tracking.
pub(super) fn track(container: &Container, flags: u32) -> Result<()> {
    DirtyPages::track(flags).send(container)?;
    Ok(())
}

/// Returns the dirty bitmap of the first 64 pages, one bit per page.
pub(super) fn written(container: &Container, pages: u64) -> Result<u64> {
    let bits = Memory::anonymous(PAGE_SIZE)?;
    DirtyPages::get(IOVA, pages * PAGE, Bitmap::word_in(&bits)).send(container)?;
    Ok(bits.read_u64(0))
}

fn only_pinned_or_written_pages_are_dirty() -> Result<()> {
    let (pinning, memory) = mapped(64)?;
    let container = &pinning.container;
    track(container, DirtyPages::START)?;
    assert_eq!(written(container, 64)?, 0, "nothing was written or pinned");
    memory.fill(0, memory.len(), 1);
    assert_eq!(
        written(container, 64)?,
        0,
        "writes of the process are not dirty"
    );
    pinning.pinner.pin(IOVA + 4 * PAGE, 2, READ | WRITE)?;
    pinning.pinner.unpin(IOVA + 4 * PAGE, 2)?;
    pinning.pinner.write(IOVA + 10 * PAGE - 1, b"ab")?;
    pinning.pinner.read(IOVA + 20 * PAGE, 100)?;
    assert_eq!(written(container, 64)?, (0b11 << 4) | (0b11 << 9));
    assert_eq!(
        written(container, 64)?,
        0,
        "a bitmap clears what it reports"
    );
    pinning.pinner.write(IOVA + 63 * PAGE, b"a")?;
    track(container, DirtyPages::STOP)?;
    track(container, DirtyPages::START)?;
    assert_eq!(written(container, 64)?, 0, "a new start forgets");
    Ok(())
}

fn pinned_pages_stay_dirty() -> Result<()> {
    let (pinning, _memory) = mapped(64)?;
    let container = &pinning.container;
    pinning.pinner.pin(IOVA + 7 * PAGE, 1, READ | WRITE)?;
    track(container, DirtyPages::START)?;
    pinning.pinner.pin(IOVA + 60 * PAGE, 4, READ | WRITE)?;
    for _ in 0..3 {
        assert_eq!(written(container, 64)?, (0xf << 60) | (1 << 7));
    }
    pinning.pinner.unpin(IOVA + 61 * PAGE, 1)?;
    assert_eq!(
        written(container, 64)?,
        (0xf << 60) | (1 << 7),
        "unpinned pages are dirty once more"
    );
    assert_eq!(written(container, 64)?, (0xd << 60) | (1 << 7));
    pinning.pinner.unpin(IOVA, 64)?;
    assert_eq!(written(container, 64)?, (0xd << 60) | (1 << 7));
    assert_eq!(written(container, 64)?, 0);
    Ok(())
}

/// Pages that a driver pins only for reading count as dirty, too.
fn read_only_pins_are_dirty() -> Result<()> {
    let (pinning, _memory) = mapped(64)?;
    track(&pinning.container, DirtyPages::START)?;
    pinning.pinner.pin(IOVA, 1, READ)?;
    assert_eq!(written(&pinning.container, 64)?, 1);
    Ok(())
}

fn all_pages_are_dirty_when_hardware_leaves() -> Result<()> {
    let (pinning, _memory) = mapped(64)?;
    let (group, device) = pinning.join_edu()?;
    let container = &pinning.container;
    track(container, DirtyPages::START)?;
    pinning.pinner.pin(IOVA + 3 * PAGE, 1, READ | WRITE)?;
    assert_eq!(written(container, 64)?, u64::MAX);
    drop(device);
    group.unset_container()?;
    assert_eq!(
        written(container, 64)?,
        u64::MAX,
        "the hardware may have written all pages"
    );
    assert_eq!(written(container, 64)?, 1 << 3);
    Ok(())
}

fn all_pages_are_dirty_beside_hardware() -> Result<()> {
    let (pinning, _memory) = mapped(64)?;
    let container = &pinning.container;
    track(container, DirtyPages::START)?;
    assert_eq!(written(container, 64)?, 0);
    let (_group, _device) = pinning.join_edu()?;
    for _ in 0..2 {
        assert_eq!(
            written(container, 64)?,
            u64::MAX,
            "the hardware may write all pages"
        );
        // Reports of the driver do not cover what the device writes.
        pinning.pinner.pin(IOVA, 1, READ | WRITE)?;
    }
    Ok(())
}

fn unmap_returns_dirty_bitmap() -> Result<()> {
    let (pinning, _memory) = mapped(64)?;
    track(&pinning.container, DirtyPages::START)?;
    pinning.pinner.write(IOVA + 5 * PAGE, b"x")?;
    pinning.pinner.pin(IOVA + 9 * PAGE, 2, READ | WRITE)?;
    let bits = Memory::anonymous(PAGE_SIZE)?;
    let unmap = UnmapDma::with_bitmap(IOVA, 64 * PAGE, Bitmap::word_in(&bits));
    assert_eq!(unmap.send(&pinning.container), Ok(64 * PAGE));
    assert_eq!(bits.read_u64(0), (1 << 5) | (0b11 << 9));
    assert_eq!((pinning.pinner.pinned()?, locked_pages()), (0, 0));
    Ok(())
}

/// The bitmap is charged to the cgroup in which the process was when it mapped, not to that of the
/// thread in which the driver writes or unpins.
fn bitmaps_are_charged_to_cgroup_of_mapper() -> Result<()> {
    const BITMAP: u64 = 2 << 20;
    const KERNEL: &str = "kernel";
    let cgroup = Cgroup::new("guest-tests")?;
    let pinning = Pinning::new()?;
    let (pinner, container) = (&pinning.pinner, &pinning.container);
    // The process has memory for the first page only; the driver uses no other.
    let size = usize::try_from(BITMAP * 8 * PAGE)?;
    let mut arena = Arena::new(EMPTY, size)?;
    arena.fill(0..PAGE_SIZE, Filling::Private)?;
    cgroup.during(|| Ok(container.map_arena(IOVA, &arena, 0..size, MapFlags::ReadWrite)?))?;
    for writes in [true, false] {
        track(container, DirtyPages::START)?;
        if writes {
            pinner.write(IOVA, b"x")?;
        } else {
            pinner.pin(IOVA, 1, READ | WRITE)?;
            pinner.unpin(IOVA, 1)?;
        }
        let charged = cgroup.wait_for(KERNEL, |bytes| bytes >= BITMAP)?;
        ensure!(
            charged >= BITMAP,
            "expected at least {BITMAP} bytes charged, got {charged}"
        );
        track(container, DirtyPages::STOP)?;
        let left = cgroup.wait_for(KERNEL, |bytes| bytes < BITMAP)?;
        ensure!(
            left < BITMAP,
            "expected less than {BITMAP} bytes charged, got {left}"
        );
    }
    Ok(())
}

/// The bus keeps an array of page pointers for each pin. A page that is pinned again counts as
/// locked memory only once, so nothing else limits the memory for these arrays.
fn records_of_pins_are_charged_to_cgroup_of_opener() -> Result<()> {
    const PAGES: u64 = 512;
    const PINS: u64 = 64;
    const ARRAYS: u64 = PINS * PAGES * size_of::<usize>() as u64;
    const KERNEL: &str = "kernel";
    let cgroup = Cgroup::new("guest-tests")?;
    let pinning = cgroup.during(Pinning::new)?;
    let memory = Memory::anonymous(PAGES as usize * PAGE_SIZE)?;
    pinning.container.map(IOVA, &memory, MapFlags::ReadWrite)?;
    let limit = cgroup.bytes(KERNEL)? + ARRAYS;
    for _ in 0..PINS {
        pinning.pinner.pin_only(IOVA, PAGES as u32, READ)?;
    }
    let charged = cgroup.wait_for(KERNEL, |bytes| bytes >= limit)?;
    ensure!(
        charged >= limit,
        "expected at least {limit} bytes charged, got {charged}"
    );
    pinning.container.unmap(IOVA, PAGES * PAGE)?;
    let left = cgroup.wait_for(KERNEL, |bytes| bytes < limit)?;
    ensure!(
        left < limit,
        "expected less than {limit} bytes charged, got {left}"
    );
    Ok(())
}

/// The helper processes of these cases.
pub mod helper {
    use super::*;
    use crate::helper::say;
    use nix::sys::resource::{
        Resource,
        rlim_t,
        setrlimit, //
    };
    use support::helper::without_ipc_lock;

    fn tell(what: &str, result: Result<i32, Errno>) {
        say(format!(
            "{what}: {result:?}, {} pages charged",
            locked_pages()
        ));
    }

    fn set_limit(pages: u64) -> Result<()> {
        // The hard limit stays high enough to raise the soft limit again.
        setrlimit(
            Resource::RLIMIT_MEMLOCK,
            (pages * PAGE) as rlim_t,
            100 * PAGE as rlim_t,
        )?;
        Ok(())
    }

    /// Pins pages up to the limit and beyond.
    pub fn pin_limit() -> Result<()> {
        without_ipc_lock(100 * PAGE)?;
        set_limit(4)?;
        let (pinning, _memory) = mapped(64)?;
        let pin = |at: u64, count| pinning.pinner.pin(IOVA + at * PAGE, count, READ);
        let count = |result: Result<(i32, u64), Errno>| result.map(|(count, _)| count);
        tell("pin 4 pages", count(pin(0, 4)));
        tell("pin one more", count(pin(4, 1)));
        tell("pin the same pages", count(pin(0, 4)));
        tell("pin two more", count(pin(2, 4)));
        pinning.pinner.unpin(IOVA, 1)?;
        tell("pin one after unpinning one", count(pin(9, 1)));
        set_limit(8)?;
        tell("pin with a higher limit", count(pin(10, 4)));
        set_limit(4)?;
        tell("pin with a lower limit", count(pin(20, 1)));
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
        tell("mapped with CAP_IPC_LOCK", pin(IOVA));
        tell("mapped without CAP_IPC_LOCK", pin(0x80_0000));
        Ok(())
    }
}
