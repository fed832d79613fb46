// SPDX-License-Identifier: GPL-2.0

//! MAP_DMA. The cases are in the order in which the errors are detected.

use crate::{
    abi::Key,
    env::{
        EDU,
        Setup,
        attached,
        msi_window, //
    },
    harness::{
        Failure,
        cases, //
    },
};
use anyhow::Result;
use support::{
    PAGE,
    machine::locked_pages,
    requests::{
        MapDma,
        UnmapDma, //
    },
};
use vfio_client::{
    Container,
    Errno,
    Group,
    Iommu,
    IovaAllocator,
    MapFlags,
    Memory,
    PAGE_SIZE,
    edu::Edu, //
};

cases! {
    #[rows("T-M2")] argsz_and_unknown_flags,
    #[rows("T-M4")] size_zero,
    #[rows("T-M5")] range_overflow,
    #[rows("T-M6")] invalid_combination_of_flags,
    #[rows("T-M7")] misaligned_range,
    #[rows("T-M8", "T-M9", "T-M27")] vaddr_update,
    #[rows("T-M11")] overlapping_ranges,
    #[rows("T-M13")] outside_iova_ranges,
    #[rows("T-M13")] ends_of_iova_ranges,
    #[rows("T-M15")] unmapped_memory,
    #[rows("T-M15")] hole_in_the_middle,
    #[rows("T-M15")] read_only_memory,
    #[requires(protection_keys)] memory_with_a_protection_key,
    #[rows("T-M22")] order_of_errors,
    #[rows("T-M23")] device_registers,
    #[rows("T-M23")] part_of_device_registers,
    #[rows("T-M23")] untouched_memory,
    #[rows("T-M25")] read_and_write_permissions,
    #[rows("T-M26")] same_memory_twice,
    #[rows("T-A1")] pages_are_charged,
    many_small_mappings,
}

fn setup() -> Result<(Container, Group)> {
    attached(EDU, Iommu::Type1v2)
}

/// Returns a valid request to map the first page of `memory` at IOVA 0.
fn first_page(memory: &Memory) -> MapDma {
    MapDma {
        vaddr: memory.addr(),
        ..MapDma::default()
    }
}

/// Checks that nothing is mapped or charged.
#[track_caller]
fn check_empty(container: &Container) -> Result<()> {
    assert_eq!(container.info()?.dma_avail(), Some(65535));
    assert_eq!(locked_pages(), 0);
    assert_eq!(container.unmap_all()?, 0);
    Ok(())
}

fn argsz_and_unknown_flags() -> Result<()> {
    let (container, _group) = setup()?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    let valid = first_page(&memory);
    for argsz in [0, 24, 31] {
        let map = MapDma { argsz, ..valid };
        assert_eq!(map.send(&container), Err(Errno::EINVAL), "{map:x?}");
    }
    for unknown in [8, 1 << 8, 1 << 31] {
        let flags = MapDma::READ_WRITE | unknown;
        let map = MapDma { flags, ..valid };
        assert_eq!(map.send(&container), Err(Errno::EINVAL), "{map:x?}");
    }
    check_empty(&container)?;
    let larger = MapDma {
        argsz: 4096,
        ..valid
    };
    assert_eq!(larger.send(&container), Ok(0));
    Ok(())
}

fn size_zero() -> Result<()> {
    let (container, _group) = setup()?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    for flags in [0, MapDma::READ, MapDma::READ_WRITE, MapDma::VADDR] {
        let empty = MapDma {
            flags,
            size: 0,
            ..first_page(&memory)
        };
        assert_eq!(empty.send(&container), Err(Errno::EINVAL), "{empty:x?}");
    }
    check_empty(&container)
}

fn range_overflow() -> Result<()> {
    let (container, _group) = setup()?;
    let memory = Memory::anonymous(2 * PAGE_SIZE)?;
    let top = u64::MAX - PAGE + 1;
    for (vaddr, iova, size) in [
        (memory.addr(), top, 2 * PAGE),
        (memory.addr(), top + 1, PAGE),
        (top, 0, 2 * PAGE),
        (u64::MAX, 0, PAGE),
    ] {
        // This error takes precedence over invalid flags.
        for flags in [MapDma::READ_WRITE, 0] {
            let map = MapDma {
                flags,
                vaddr,
                iova,
                size,
                ..MapDma::default()
            };
            assert_eq!(map.send(&container), Err(Errno::EOVERFLOW), "{map:x?}");
        }
    }
    // The last page of the address space, which is not a user address.
    let last = MapDma {
        vaddr: top,
        ..MapDma::default()
    };
    assert_eq!(last.send(&container), Err(Errno::EFAULT));
    check_empty(&container)
}

fn invalid_combination_of_flags() -> Result<()> {
    let (container, _group) = setup()?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    for flags in [
        0,
        MapDma::VADDR | MapDma::READ,
        MapDma::VADDR | MapDma::WRITE,
        MapDma::VADDR | MapDma::READ_WRITE,
    ] {
        let map = MapDma {
            flags,
            ..first_page(&memory)
        };
        assert_eq!(map.send(&container), Err(Errno::EINVAL), "{map:x?}");
    }
    check_empty(&container)
}

fn misaligned_range() -> Result<()> {
    let (container, _group) = setup()?;
    let memory = Memory::anonymous(4 * PAGE_SIZE)?;
    let addr = memory.addr();
    for (vaddr, iova, size) in [
        (addr + 1, 0, PAGE),
        (addr + 2048, 0, PAGE),
        (addr, 1, PAGE),
        (addr, 0x800, PAGE),
        (addr, 0, 1),
        (addr, 0, PAGE - 1),
        (addr, 0, PAGE + 1),
        (addr + 512, 512, 512),
    ] {
        let map = MapDma {
            vaddr,
            iova,
            size,
            ..MapDma::default()
        };
        assert_eq!(map.send(&container), Err(Errno::EINVAL), "{map:x?}");
    }
    check_empty(&container)
}

fn vaddr_update() -> Result<()> {
    let (container, _group) = setup()?;
    let memory = Memory::anonymous(4 * PAGE_SIZE)?;
    let other = Memory::anonymous(4 * PAGE_SIZE)?;
    let size = memory.len() as u64;
    let update = |iova, size| {
        let update = MapDma {
            flags: MapDma::VADDR,
            vaddr: other.addr(),
            iova,
            size,
            ..MapDma::default()
        };
        update.send(&container)
    };
    assert_eq!(update(0, PAGE), Err(Errno::ENOENT));
    container.map(0, &memory, MapFlags::ReadWrite)?;
    assert_eq!(update(0, size), Err(Errno::EINVAL), "the vaddr is valid");
    let invalidate = UnmapDma {
        flags: UnmapDma::VADDR,
        ..UnmapDma::of(0, size)
    };
    assert_eq!(invalidate.send(&container), Ok(size));
    assert_eq!(locked_pages(), 4, "the device keeps the pages");
    assert_eq!(invalidate.send(&container), Err(Errno::EINVAL), "again");
    assert_eq!(update(0, PAGE), Err(Errno::EINVAL), "a part of the mapping");
    assert_eq!(update(PAGE, size), Err(Errno::EINVAL));
    assert_eq!(update(0x1000 * PAGE, PAGE), Err(Errno::ENOENT));
    // Mapping another range is still allowed.
    container.map(0x1000 * PAGE, &other, MapFlags::Read)?;
    assert_eq!(update(0, size), Ok(0));
    assert_eq!(update(0, size), Err(Errno::EINVAL));
    assert_eq!(container.unmap_all()?, 2 * size);
    check_empty(&container)
}

fn overlapping_ranges() -> Result<()> {
    let (container, _group) = setup()?;
    let memory = Memory::anonymous(8 * PAGE_SIZE)?;
    container.map_part(0x10 * PAGE, &memory, 0, 4 * PAGE_SIZE, MapFlags::ReadWrite)?;
    for (iova, pages) in [
        (0x10 * PAGE, 4),
        (0x10 * PAGE, 1),
        (0x11 * PAGE, 1),
        (0x13 * PAGE, 1),
        (0x13 * PAGE, 4),
        (0xf * PAGE, 2),
        (0xf * PAGE, 8),
        (0xd * PAGE, 4),
    ] {
        let answer = container.map_part(iova, &memory, 0, pages * PAGE_SIZE, MapFlags::Read);
        assert_eq!(answer.errno(), Errno::EEXIST, "{iova:#x} {pages}");
    }
    assert_eq!(container.info()?.dma_avail(), Some(65534));
    assert_eq!(locked_pages(), 4);
    container.map_part(0xf * PAGE, &memory, 0, PAGE_SIZE, MapFlags::Read)?;
    container.map_part(0x14 * PAGE, &memory, 0, PAGE_SIZE, MapFlags::Read)?;
    assert_eq!(container.unmap_all()?, 6 * PAGE);
    check_empty(&container)
}

fn outside_iova_ranges() -> Result<()> {
    let (container, _group) = setup()?;
    let memory = Memory::anonymous(4 * PAGE_SIZE)?;
    let last = container
        .info()?
        .ranges()
        .last()
        .map_or(u64::MAX, |range| range.end);
    let window = msi_window(EDU)?;
    let last_of_window = window.end - PAGE + 1;
    let mut places = vec![
        (window.start, 1),
        (last_of_window, 1),
        (window.start - PAGE, 2),
        (last_of_window, 2),
    ];
    if last != u64::MAX {
        places.extend([
            (last + 1, 1),
            (last - PAGE + 1, 2),
            (u64::MAX - PAGE + 1, 1),
        ]);
    }
    for (iova, pages) in places {
        let map = MapDma {
            iova,
            size: pages * PAGE,
            ..first_page(&memory)
        };
        assert_eq!(map.send(&container), Err(Errno::EINVAL), "{map:x?}");
    }
    check_empty(&container)
}

fn ends_of_iova_ranges() -> Result<()> {
    let (container, _group) = setup()?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    let ranges = container.info()?.ranges();
    for range in &ranges {
        container.map(range.start, &memory, MapFlags::Read)?;
        container.map(range.end - PAGE + 1, &memory, MapFlags::Read)?;
    }
    for range in &ranges {
        assert_eq!(container.unmap(range.start, PAGE)?, PAGE);
        assert_eq!(container.unmap(range.end - PAGE + 1, PAGE)?, PAGE);
    }
    let window = msi_window(EDU)?;
    let mut iova = IovaAllocator::new(&ranges, window.start - PAGE);
    assert_eq!(iova.take(2 * PAGE, PAGE), Some(window.end + 1));
    check_empty(&container)
}

fn unmapped_memory() -> Result<()> {
    let (container, _group) = setup()?;
    let mut memory = Memory::anonymous(4 * PAGE_SIZE)?;
    memory.protect(false, false)?;
    for vaddr in [0, PAGE, memory.addr(), 0x8000_0000_0000, 1 << 63] {
        for flags in [MapDma::READ, MapDma::WRITE, MapDma::READ_WRITE] {
            let map = MapDma {
                flags,
                vaddr,
                ..MapDma::default()
            };
            assert_eq!(map.send(&container), Err(Errno::EFAULT), "{map:x?}");
        }
    }
    check_empty(&container)
}

fn hole_in_the_middle() -> Result<()> {
    let (container, _group) = setup()?;
    // An inaccessible page follows the anonymous memory.
    let memory = Memory::anonymous(8 * PAGE_SIZE)?;
    memory.fill(0, memory.len(), 1);
    let mut other = Memory::anonymous(8 * PAGE_SIZE)?;
    other.protect(false, false)?;
    container.map(0, &memory, MapFlags::ReadWrite)?;
    assert_eq!(
        container
            .map(0x100 * PAGE, &other, MapFlags::ReadWrite)
            .errno(),
        Errno::EFAULT
    );
    // The range of the failed request is free again.
    assert_eq!(container.info()?.dma_avail(), Some(65534));
    container.map(0x100 * PAGE, &memory, MapFlags::ReadWrite)?;
    assert_eq!(container.unmap_all()?, 16 * PAGE);
    check_empty(&container)
}

fn read_only_memory() -> Result<()> {
    let (container, _group) = setup()?;
    let mut memory = Memory::anonymous(4 * PAGE_SIZE)?;
    memory.fill(0, memory.len(), 1);
    memory.protect(true, false)?;
    for flags in [MapFlags::Write, MapFlags::ReadWrite] {
        assert_eq!(container.map(0, &memory, flags).errno(), Errno::EFAULT);
    }
    container.map(0, &memory, MapFlags::Read)?;
    assert_eq!(container.unmap_all()?, 4 * PAGE);
    check_empty(&container)
}

/// The key restricts accesses of the thread, not of devices.
fn memory_with_a_protection_key() -> Result<()> {
    let (container, _group) = setup()?;
    let key = Key::new()?;
    for touched in [true, false] {
        let mut memory = Memory::anonymous(20 * PAGE_SIZE)?;
        if touched {
            memory.fill(0, memory.len(), 1);
        }
        key.protect(&mut memory)?;
        container.map(0, &memory, MapFlags::ReadWrite)?;
        assert_eq!(locked_pages(), 20);
        assert_eq!(container.unmap_all()?, 20 * PAGE);
    }
    check_empty(&container)
}

fn order_of_errors() -> Result<()> {
    let (container, _group) = setup()?;
    let memory = Memory::anonymous(2 * PAGE_SIZE)?;
    let addr = memory.addr();
    let top = u64::MAX - PAGE + 1;
    let window = msi_window(EDU)?;
    container.map_part(0, &memory, 0, PAGE_SIZE, MapFlags::Read)?;
    let valid = MapDma {
        vaddr: addr,
        ..MapDma::default()
    };
    let wraps = MapDma {
        flags: 0,
        iova: top,
        size: 2 * PAGE,
        ..valid
    };
    for (case, map, errno) in [
        (
            "argsz before overflow",
            MapDma { argsz: 8, ..wraps },
            Errno::EINVAL,
        ),
        ("overflow before flags", wraps, Errno::EOVERFLOW),
        (
            "alignment before overlap",
            MapDma {
                vaddr: addr + 1,
                ..valid
            },
            Errno::EINVAL,
        ),
        (
            "overlap before memory",
            MapDma { vaddr: 0, ..valid },
            Errno::EEXIST,
        ),
        (
            "range before memory",
            MapDma {
                vaddr: 0,
                iova: window.start,
                ..valid
            },
            Errno::EINVAL,
        ),
        (
            "overlap before range",
            MapDma {
                vaddr: 1 << 47,
                size: window.end + 1,
                ..valid
            },
            Errno::EEXIST,
        ),
        (
            "alignment before missing mapping",
            MapDma {
                flags: MapDma::VADDR,
                vaddr: addr + 1,
                iova: PAGE,
                ..valid
            },
            Errno::EINVAL,
        ),
    ] {
        assert_eq!(map.send(&container), Err(errno), "{case}: {map:x?}");
    }
    assert_eq!(container.unmap_all()?, PAGE);
    check_empty(&container)
}

fn device_registers() -> Result<()> {
    let setup = Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    let registers = edu.registers();
    setup
        .container
        .map(0x10000 * PAGE, registers, MapFlags::ReadWrite)?;
    assert_eq!(locked_pages(), 0, "registers are not charged");
    assert_eq!(
        setup
            .container
            .unmap(0x10000 * PAGE, registers.len() as u64)?,
        registers.len() as u64
    );
    Ok(())
}

fn part_of_device_registers() -> Result<()> {
    let setup = Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    let registers = edu.registers();
    for flags in [MapFlags::Read, MapFlags::Write] {
        setup
            .container
            .map_part(0, registers, 3 * PAGE_SIZE, 2 * PAGE_SIZE, flags)?;
        assert_eq!(setup.container.unmap(0, 2 * PAGE)?, 2 * PAGE);
    }
    Ok(())
}

fn untouched_memory() -> Result<()> {
    let (container, _group) = setup()?;
    let memory = Memory::anonymous(16 * PAGE_SIZE)?;
    container.map(0, &memory, MapFlags::Read)?;
    let charged = locked_pages();
    // Later writes of the process go to the pages that the device accesses, whatever pages these
    // were.
    assert_eq!(charged, 16, "private memory is charged, also while empty");
    assert_eq!(container.unmap_all()?, 16 * PAGE);
    container.map(0, &memory, MapFlags::ReadWrite)?;
    assert_eq!(locked_pages(), 16);
    assert_eq!(container.unmap_all()?, 16 * PAGE);
    check_empty(&container)
}

fn read_and_write_permissions() -> Result<()> {
    let (container, _group) = setup()?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    for (iova, flags) in [
        (0, MapFlags::Read),
        (PAGE, MapFlags::Write),
        (2 * PAGE, MapFlags::ReadWrite),
    ] {
        container.map(iova, &memory, flags)?;
    }
    assert_eq!(container.unmap(0, 3 * PAGE)?, 3 * PAGE);
    check_empty(&container)
}

fn same_memory_twice() -> Result<()> {
    let (container, _group) = setup()?;
    let memory = Memory::anonymous(4 * PAGE_SIZE)?;
    for iova in [0, 0x100 * PAGE, 0x200 * PAGE] {
        container.map(iova, &memory, MapFlags::ReadWrite)?;
    }
    assert_eq!(locked_pages(), 12, "charged each time");
    assert_eq!(container.unmap_all()?, 12 * PAGE);
    check_empty(&container)
}

fn pages_are_charged() -> Result<()> {
    let (container, group) = setup()?;
    let memory = Memory::anonymous(256 * PAGE_SIZE)?;
    container.map(0, &memory, MapFlags::ReadWrite)?;
    assert_eq!(locked_pages(), 256);
    container.unmap(0, 256 * PAGE)?;
    assert_eq!(locked_pages(), 0);
    container.map(0, &memory, MapFlags::ReadWrite)?;
    drop(container);
    assert_eq!(locked_pages(), 256, "the group keeps the mappings");
    drop(group);
    assert_eq!(locked_pages(), 0);
    Ok(())
}

fn many_small_mappings() -> Result<()> {
    let (container, _group) = setup()?;
    let memory = Memory::anonymous(512 * PAGE_SIZE)?;
    // Every second page of the address range, from both ends towards the middle.
    let order = (0..256).flat_map(|i| [i, 511 - i]);
    for i in order.clone() {
        container.map_part(
            i * 2 * PAGE,
            &memory,
            i as usize * PAGE_SIZE,
            PAGE_SIZE,
            MapFlags::ReadWrite,
        )?;
    }
    assert_eq!(container.info()?.dma_avail(), Some(65535 - 512));
    assert_eq!(container.unmap(0x100 * PAGE, 0x100 * PAGE)?, 128 * PAGE);
    assert_eq!(container.unmap_all()?, 384 * PAGE);
    check_empty(&container)
}
