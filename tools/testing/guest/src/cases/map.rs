// SPDX-License-Identifier: GPL-2.0

//! MAP_DMA. The cases are in the order in which the errors are detected.

use crate::{
    abi::Key,
    env::{
        EDU,
        Setup,
        attached, //
    },
    harness::{
        Failure,
        cases, //
    },
    leak::locked_kib,
};
use anyhow::Result;
use vfio_client::{
    Bytes,
    Container,
    Errno,
    Group,
    Iommu,
    IovaAllocator,
    MapFlags,
    Memory,
    PAGE_SIZE,
    edu::Edu,
    raw,
    request, //
};

cases! {
    t_m02_sizes_and_flags,
    t_m04_empty,
    t_m05_overflow,
    t_m06_flags,
    t_m07_alignment,
    t_m08_and_m09_and_m27_vaddr,
    t_m11_overlap,
    t_m13_outside_ranges,
    t_m13_ends_of_ranges,
    t_m15_unmapped_memory,
    t_m15_hole_in_the_middle,
    t_m15_read_only_memory,
    #[protection_keys]
    memory_with_a_protection_key,
    t_m22_order_of_errors,
    t_m23_registers,
    t_m23_part_of_registers,
    t_m23_untouched_memory,
    t_m25_directions,
    t_m26_same_memory_twice,
    t_a1_locked_memory,
    many_small_mappings,
}

const PAGE: u64 = PAGE_SIZE as u64;

fn setup() -> Result<(Container, Group)> {
    attached(EDU, Iommu::Type1v2)
}

/// Sends MAP_DMA and checks that the kernel does not write to the structure.
fn map(
    container: &Container,
    argsz: u32,
    flags: u32,
    vaddr: u64,
    iova: u64,
    size: u64,
) -> Result<i32, Errno> {
    let mut bytes = Bytes::new()
        .u32(argsz)
        .u32(flags)
        .u64(vaddr)
        .u64(iova)
        .u64(size);
    let before = bytes.clone();
    let answer = raw::bytes(container, request::IOMMU_MAP_DMA, &mut bytes);
    assert_eq!(bytes, before, "MAP_DMA writes nothing");
    answer
}

/// Checks that nothing is mapped or charged.
#[track_caller]
fn check_empty(container: &Container) -> Result<()> {
    assert_eq!(container.info()?.dma_avail(), Some(65535));
    assert_eq!(locked_kib(), 0);
    assert_eq!(container.unmap_all()?, 0);
    Ok(())
}

fn t_m02_sizes_and_flags() -> Result<()> {
    let (container, _group) = setup()?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    for argsz in [0, 24, 31] {
        assert_eq!(
            map(&container, argsz, 3, memory.addr(), 0, PAGE),
            Err(Errno::EINVAL)
        );
    }
    for flags in [8, 1 << 8, 1 << 31] {
        assert_eq!(
            map(&container, 32, 3 | flags, memory.addr(), 0, PAGE),
            Err(Errno::EINVAL)
        );
    }
    check_empty(&container)?;
    assert_eq!(map(&container, 4096, 3, memory.addr(), 0, PAGE), Ok(0));
    Ok(())
}

fn t_m04_empty() -> Result<()> {
    let (container, _group) = setup()?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    for flags in [0, 1, 3, 4] {
        assert_eq!(
            map(&container, 32, flags, memory.addr(), 0, 0),
            Err(Errno::EINVAL)
        );
    }
    check_empty(&container)
}

fn t_m05_overflow() -> Result<()> {
    let (container, _group) = setup()?;
    let memory = Memory::anonymous(2 * PAGE_SIZE)?;
    let top = u64::MAX - PAGE + 1;
    for (vaddr, iova, size) in [
        (memory.addr(), top, 2 * PAGE),
        (memory.addr(), top + 1, PAGE),
        (top, 0, 2 * PAGE),
        (u64::MAX, 0, PAGE),
    ] {
        assert_eq!(
            map(&container, 32, 3, vaddr, iova, size),
            Err(Errno::EOVERFLOW),
            "{vaddr:#x} {iova:#x} {size:#x}"
        );
        // This error takes precedence over invalid flags.
        assert_eq!(
            map(&container, 32, 0, vaddr, iova, size),
            Err(Errno::EOVERFLOW)
        );
    }
    // The last page of the address space, which is not a user address.
    assert_eq!(map(&container, 32, 3, top, 0, PAGE), Err(Errno::EFAULT));
    check_empty(&container)
}

fn t_m06_flags() -> Result<()> {
    let (container, _group) = setup()?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    for flags in [0, 5, 6, 7] {
        assert_eq!(
            map(&container, 32, flags, memory.addr(), 0, PAGE),
            Err(Errno::EINVAL)
        );
    }
    check_empty(&container)
}

fn t_m07_alignment() -> Result<()> {
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
        assert_eq!(
            map(&container, 32, 3, vaddr, iova, size),
            Err(Errno::EINVAL)
        );
    }
    check_empty(&container)
}

fn t_m08_and_m09_and_m27_vaddr() -> Result<()> {
    let (container, _group) = setup()?;
    let memory = Memory::anonymous(4 * PAGE_SIZE)?;
    let other = Memory::anonymous(4 * PAGE_SIZE)?;
    let size = memory.len() as u64;
    let update = |iova, size| map(&container, 32, 4, other.addr(), iova, size);
    assert_eq!(update(0, PAGE), Err(Errno::ENOENT));
    container.map(0, &memory, MapFlags::ReadWrite)?;
    assert_eq!(update(0, size), Err(Errno::EINVAL), "still valid");
    let mut unmap = Bytes::new().u32(24).u32(4).u64(0).u64(size);
    assert_eq!(
        raw::bytes(&container, request::IOMMU_UNMAP_DMA, &mut unmap),
        Ok(0)
    );
    assert_eq!(unmap.get_u64(16), size);
    assert_eq!(locked_kib(), 16, "kept for the device");
    // Repeating the request changes nothing and returns the size again.
    let mut again = Bytes::new().u32(24).u32(4).u64(0).u64(size);
    assert_eq!(
        raw::bytes(&container, request::IOMMU_UNMAP_DMA, &mut again),
        Err(Errno::EINVAL)
    );
    assert_eq!(again.get_u64(16), size, "not written back on errors");
    assert_eq!(update(0, PAGE), Err(Errno::EINVAL), "not the same range");
    assert_eq!(update(PAGE, size), Err(Errno::EINVAL));
    assert_eq!(update(0x100_0000, PAGE), Err(Errno::ENOENT));
    // Mapping another range is still allowed.
    container.map(0x100_0000, &other, MapFlags::Read)?;
    assert_eq!(update(0, size), Ok(0));
    assert_eq!(update(0, size), Err(Errno::EINVAL));
    assert_eq!(container.unmap_all()?, 2 * size);
    check_empty(&container)
}

fn t_m11_overlap() -> Result<()> {
    let (container, _group) = setup()?;
    let memory = Memory::anonymous(8 * PAGE_SIZE)?;
    container.map_part(0x10000, &memory, 0, 4 * PAGE_SIZE, MapFlags::ReadWrite)?;
    for (iova, pages) in [
        (0x10000, 4),
        (0x10000, 1),
        (0x11000, 1),
        (0x13000, 1),
        (0x13000, 4),
        (0xf000, 2),
        (0xf000, 8),
        (0xd000, 4),
    ] {
        let answer = container.map_part(iova, &memory, 0, pages * PAGE_SIZE, MapFlags::Read);
        assert_eq!(answer.errno(), Errno::EEXIST, "{iova:#x} {pages}");
    }
    assert_eq!(container.info()?.dma_avail(), Some(65534));
    assert_eq!(locked_kib(), 16);
    container.map_part(0xf000, &memory, 0, PAGE_SIZE, MapFlags::Read)?;
    container.map_part(0x14000, &memory, 0, PAGE_SIZE, MapFlags::Read)?;
    assert_eq!(container.unmap_all()?, 6 * PAGE);
    check_empty(&container)
}

fn t_m13_outside_ranges() -> Result<()> {
    let (container, _group) = setup()?;
    let memory = Memory::anonymous(4 * PAGE_SIZE)?;
    let last = container
        .info()?
        .ranges()
        .last()
        .map_or(u64::MAX, |range| range.end);
    let mut places = vec![
        (0xfee0_0000, 1),
        (0xfeef_f000, 1),
        (0xfedf_f000, 2),
        (0xfeef_f000, 2),
    ];
    if last != u64::MAX {
        places.extend([
            (last + 1, 1),
            (last - PAGE + 1, 2),
            (u64::MAX - PAGE + 1, 1),
        ]);
    }
    for (iova, pages) in places {
        assert_eq!(
            map(&container, 32, 3, memory.addr(), iova, pages * PAGE),
            Err(Errno::EINVAL),
            "{iova:#x} {pages}"
        );
    }
    check_empty(&container)
}

fn t_m13_ends_of_ranges() -> Result<()> {
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
    let mut iova = IovaAllocator::new(&ranges, 0xfedf_f000);
    assert_eq!(iova.take(2 * PAGE, PAGE), Some(0xfef0_0000));
    check_empty(&container)
}

fn t_m15_unmapped_memory() -> Result<()> {
    let (container, _group) = setup()?;
    let mut memory = Memory::anonymous(4 * PAGE_SIZE)?;
    memory.protect(false, false)?;
    for vaddr in [0, PAGE, memory.addr(), 0x8000_0000_0000, 1 << 63] {
        for flags in [1, 2, 3] {
            assert_eq!(
                map(&container, 32, flags, vaddr, 0, PAGE),
                Err(Errno::EFAULT),
                "{vaddr:#x} {flags}"
            );
        }
    }
    check_empty(&container)
}

fn t_m15_hole_in_the_middle() -> Result<()> {
    let (container, _group) = setup()?;
    // An inaccessible page follows the anonymous memory.
    let memory = Memory::anonymous(8 * PAGE_SIZE)?;
    memory.fill(0, memory.len(), 1);
    let mut other = Memory::anonymous(8 * PAGE_SIZE)?;
    other.protect(false, false)?;
    container.map(0, &memory, MapFlags::ReadWrite)?;
    assert_eq!(
        container
            .map(0x10_0000, &other, MapFlags::ReadWrite)
            .errno(),
        Errno::EFAULT
    );
    // The range of the failed request is free again.
    assert_eq!(container.info()?.dma_avail(), Some(65534));
    container.map(0x10_0000, &memory, MapFlags::ReadWrite)?;
    assert_eq!(container.unmap_all()?, 16 * PAGE);
    check_empty(&container)
}

fn t_m15_read_only_memory() -> Result<()> {
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
        assert_eq!(locked_kib(), 20 * 4);
        assert_eq!(container.unmap_all()?, 20 * PAGE);
    }
    check_empty(&container)
}

fn t_m22_order_of_errors() -> Result<()> {
    let (container, _group) = setup()?;
    let memory = Memory::anonymous(2 * PAGE_SIZE)?;
    let addr = memory.addr();
    let top = u64::MAX - PAGE + 1;
    container.map_part(0, &memory, 0, PAGE_SIZE, MapFlags::Read)?;
    for (what, argsz, flags, vaddr, iova, size, errno) in [
        (
            "size of structure",
            8,
            0,
            addr,
            top,
            2 * PAGE,
            Errno::EINVAL,
        ),
        (
            "overflow before flags",
            32,
            0,
            addr,
            top,
            2 * PAGE,
            Errno::EOVERFLOW,
        ),
        (
            "alignment before overlap",
            32,
            3,
            addr + 1,
            0,
            PAGE,
            Errno::EINVAL,
        ),
        ("overlap before memory", 32, 3, 0, 0, PAGE, Errno::EEXIST),
        (
            "range before memory",
            32,
            3,
            0,
            0xfee0_0000,
            PAGE,
            Errno::EINVAL,
        ),
        (
            "overlap before range",
            32,
            3,
            1 << 47,
            0,
            0xfef0_0000,
            Errno::EEXIST,
        ),
        (
            "alignment before entry",
            32,
            4,
            addr + 1,
            0x1000,
            PAGE,
            Errno::EINVAL,
        ),
    ] {
        assert_eq!(
            map(&container, argsz, flags, vaddr, iova, size),
            Err(errno),
            "{what}"
        );
    }
    assert_eq!(container.unmap_all()?, PAGE);
    check_empty(&container)
}

fn t_m23_registers() -> Result<()> {
    let setup = Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    let registers = edu.registers();
    setup
        .container
        .map(0x1000_0000, registers, MapFlags::ReadWrite)?;
    assert_eq!(locked_kib(), 0, "registers are not charged");
    assert_eq!(
        setup.container.unmap(0x1000_0000, registers.len() as u64)?,
        registers.len() as u64
    );
    Ok(())
}

fn t_m23_part_of_registers() -> Result<()> {
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

fn t_m23_untouched_memory() -> Result<()> {
    let (container, _group) = setup()?;
    let memory = Memory::anonymous(16 * PAGE_SIZE)?;
    container.map(0, &memory, MapFlags::Read)?;
    let charged = locked_kib();
    // Later writes of the process go to the pages that the device accesses, whatever pages these
    // were.
    assert_eq!(charged, 64, "private memory is charged, also while empty");
    assert_eq!(container.unmap_all()?, 16 * PAGE);
    container.map(0, &memory, MapFlags::ReadWrite)?;
    assert_eq!(locked_kib(), 64);
    assert_eq!(container.unmap_all()?, 16 * PAGE);
    check_empty(&container)
}

fn t_m25_directions() -> Result<()> {
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

fn t_m26_same_memory_twice() -> Result<()> {
    let (container, _group) = setup()?;
    let memory = Memory::anonymous(4 * PAGE_SIZE)?;
    for iova in [0, 0x10_0000, 0x20_0000] {
        container.map(iova, &memory, MapFlags::ReadWrite)?;
    }
    assert_eq!(locked_kib(), 48, "charged each time");
    assert_eq!(container.unmap_all()?, 12 * PAGE);
    check_empty(&container)
}

fn t_a1_locked_memory() -> Result<()> {
    let (container, group) = setup()?;
    let memory = Memory::anonymous(256 * PAGE_SIZE)?;
    container.map(0, &memory, MapFlags::ReadWrite)?;
    assert_eq!(locked_kib(), 1024);
    container.unmap(0, 256 * PAGE)?;
    assert_eq!(locked_kib(), 0);
    container.map(0, &memory, MapFlags::ReadWrite)?;
    drop(container);
    assert_eq!(locked_kib(), 1024, "the group keeps the mappings");
    drop(group);
    assert_eq!(locked_kib(), 0);
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
