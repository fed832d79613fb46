// SPDX-License-Identifier: GPL-2.0

//! Mapping and unmapping memory: what devices can access, and what is charged to the process.

use super::{
    HUGE,
    HUGE_ORDER,
    PAGE,
    divided,
    refused,
    refused_write,
    unreached, //
};
use crate::{
    harness::{
        Failure,
        cases, //
    },
    leak::locked_kib,
};
use anyhow::Result;
use nix::sys::resource::{
    Resource,
    getrlimit,
    rlim_t,
    setrlimit, //
};
use pamu_dma::open;
use std::fs::{
    self,
    File, //
};
use vfio_client::{
    Bytes,
    Errno,
    MapFlags,
    Memory,
    pamu::{
        Content,
        Pamu, //
    },
    raw,
    request, //
};

cases! {
    mapped_memory_is_accessible,
    unmapped_addresses_are_not_accessible,
    permissions,
    hugepages,
    part_of_a_window,
    the_only_window,
    mapping_begins_at_the_start_of_a_window,
    mapping_sizes,
    mapping_flags,
    window_in_use,
    memory_is_not_contiguous,
    memory_is_not_accessible,
    memory_is_not_aligned,
    failed_mapping_maps_nothing,
    unmap_returns_the_size,
    part_of_a_window_cannot_be_unmapped,
    unmap_bad_ranges,
    locked_memory,
    limit_on_locked_memory,
    closing_the_container_unmaps,
    all_windows,
    iovas_above_4_gib,
}

/// Returns memory of `pages` pages. Each page starts with its number plus one.
fn numbered(pages: usize) -> Result<Memory> {
    let memory = Memory::anonymous(pages * 4096)?;
    for page in 0..pages {
        memory.write_u64(page * 4096, page as u64 + 1);
    }
    Ok(memory)
}

fn mapped_memory_is_accessible() -> Result<()> {
    let (pamu, engine) = divided(8, PAGE)?;
    let memory = numbered(3)?;
    pamu.map(2 * PAGE, &memory, MapFlags::ReadWrite)?;
    for page in 0..3 {
        assert_eq!(engine.read((2 + page) * PAGE)?, Ok(page + 1));
    }
    assert_eq!(engine.write(3 * PAGE + 4088, 77)?, Ok(()));
    assert_eq!(memory.read_u64(2 * 4096 - 8), 77);
    assert_eq!(engine.copy(2 * PAGE, 3 * PAGE + 8, 6000)?, Ok(()));
    assert_eq!(memory.to_vec(0, 4000), memory.to_vec(4096 + 8, 4000));
    Ok(())
}

fn unmapped_addresses_are_not_accessible() -> Result<()> {
    let (pamu, engine) = divided(8, PAGE)?;
    let memory = numbered(1)?;
    unreached(&pamu, &engine, 0);
    pamu.map(PAGE, &memory, MapFlags::ReadWrite)?;
    for iova in [
        0,
        2 * PAGE,
        7 * PAGE,
        8 * PAGE,
        1 << 20,
        1 << 36,
        u64::MAX - 7,
    ] {
        refused(&pamu, &engine, iova);
        refused_write(&pamu, &engine, iova);
    }
    // An access that begins inside the window.
    assert_eq!(engine.read(2 * PAGE - 4)?, Err(Errno::EFAULT));
    // Until the engine is revived, it cannot access anything.
    assert_eq!(engine.read(PAGE)?, Err(Errno::EFAULT));
    pamu.revive(super::LIODN)?;
    assert_eq!(engine.read(PAGE)?, Ok(1));
    pamu.unmap(PAGE, PAGE)?;
    unreached(&pamu, &engine, PAGE);
    Ok(())
}

fn permissions() -> Result<()> {
    let (pamu, engine) = divided(4, PAGE)?;
    let memory = numbered(1)?;
    pamu.map(0, &memory, MapFlags::Read)?;
    assert_eq!(engine.read(0)?, Ok(1));
    refused_write(&pamu, &engine, 0);
    pamu.map(PAGE, &memory, MapFlags::Write)?;
    assert_eq!(engine.write(PAGE, 5)?, Ok(()));
    refused(&pamu, &engine, PAGE);
    assert_eq!(memory.read_u64(0), 5);
    let (read, write) = (pamu.window(0)?, pamu.window(1)?);
    assert_eq!((read.read, read.write), (true, false));
    assert_eq!((write.read, write.write), (false, true));
    Ok(())
}

fn hugepages() -> Result<()> {
    let (pamu, engine) = divided(4, HUGE)?;
    let memory = Memory::huge(2 * HUGE as usize, HUGE_ORDER)?;
    for offset in [0, HUGE - 8, HUGE, 2 * HUGE - 8] {
        memory.write_u64(offset as usize, offset + 1);
    }
    pamu.map(HUGE, &memory, MapFlags::ReadWrite)?;
    for offset in [0, HUGE - 8, HUGE, 2 * HUGE - 8] {
        assert_eq!(engine.read(HUGE + offset)?, Ok(offset + 1));
    }
    refused(&pamu, &engine, HUGE - 8);
    refused(&pamu, &engine, 3 * HUGE);
    assert_eq!(locked_kib(), 4096);
    assert_eq!(pamu.unmap(0, 4 * HUGE)?, 2 * HUGE);
    assert_eq!(locked_kib(), 0);
    Ok(())
}

fn part_of_a_window() -> Result<()> {
    let (pamu, engine) = divided(4, HUGE)?;
    let memory = Memory::huge(2 * HUGE as usize, HUGE_ORDER)?;
    for part in [PAGE, 4 * PAGE, HUGE / 2] {
        let size = (HUGE + part) as usize;
        pamu.map_part(0, &memory, 0, size, MapFlags::ReadWrite)?;
        assert_eq!((pamu.window(0)?.size, pamu.window(1)?.size), (HUGE, part));
        assert_eq!(engine.write(HUGE + part - 8, part)?, Ok(()));
        assert_eq!(memory.read_u64((HUGE + part - 8) as usize), part);
        refused(&pamu, &engine, HUGE + part);
        refused(&pamu, &engine, 2 * HUGE - 8);
        assert_eq!(pamu.unmap(0, HUGE + part)?, HUGE + part);
    }
    Ok(())
}

fn the_only_window() -> Result<()> {
    let (pamu, engine) = divided(1, HUGE)?;
    let memory = Memory::huge(HUGE as usize, HUGE_ORDER)?;
    unreached(&pamu, &engine, 0);
    for part in [HUGE, PAGE, HUGE / 4] {
        pamu.map_part(0, &memory, 0, part as usize, MapFlags::ReadWrite)?;
        assert_eq!(engine.write(part - 8, part)?, Ok(()));
        assert_eq!(memory.read_u64(part as usize - 8), part);
        refused(&pamu, &engine, part);
        refused(&pamu, &engine, HUGE);
        pamu.unmap(0, HUGE)?;
        unreached(&pamu, &engine, 0);
    }
    // Unmapping a part does not change the aperture.
    assert_eq!(pamu.geometry()?, (0, HUGE - 1));
    Ok(())
}

fn mapping_begins_at_the_start_of_a_window() -> Result<()> {
    let (pamu, _engine) = divided(8, HUGE)?;
    let memory = numbered(2)?;
    for iova in [PAGE, HUGE - PAGE, HUGE + 1, 8 * HUGE, u64::MAX - 8191] {
        let mapped = pamu.map_part(iova, &memory, 0, 4096, MapFlags::Read);
        assert_eq!(mapped.errno(), Errno::EINVAL);
    }
    Ok(())
}

/// Creates a file without a name.
fn tempfile() -> Result<File> {
    const PATH: &str = "/tmp/pamu";
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(PATH)?;
    fs::remove_file(PATH)?;
    Ok(file)
}

/// Sends MAP_DMA without checking its arguments.
fn map_raw(pamu: &Pamu, flags: u32, vaddr: u64, iova: u64, size: u64) -> Result<(), Errno> {
    let mut bytes = Bytes::new()
        .u32(32)
        .u32(flags)
        .u64(vaddr)
        .u64(iova)
        .u64(size);
    raw::bytes(pamu.container(), request::IOMMU_MAP_DMA, &mut bytes).map(drop)
}

fn mapping_sizes() -> Result<()> {
    let (pamu, _engine) = divided(4, 4 * PAGE)?;
    // Nothing is ever mapped at this user address, so only the sizes matter.
    const NOWHERE: u64 = 0x7fff_ffff_f000;
    for size in [
        0,
        1,
        2048,
        PAGE - 1,
        PAGE + 1,
        3 * PAGE,
        4 * PAGE + 2048,
        7 * PAGE,
        17 * PAGE,
        1 << 40,
        u64::MAX,
        u64::MAX - 0xfff,
    ] {
        assert_eq!(
            map_raw(&pamu, 1, NOWHERE, 0, size),
            Err(Errno::EINVAL),
            "{size:#x}"
        );
    }
    assert_eq!(map_raw(&pamu, 1, NOWHERE, 0, PAGE), Err(Errno::EFAULT));
    assert_eq!(
        map_raw(&pamu, 1, NOWHERE, 12 * PAGE, 5 * PAGE),
        Err(Errno::EINVAL)
    );
    assert_eq!(
        map_raw(&pamu, 1, u64::MAX - 0xfff, 0, 8 * PAGE),
        Err(Errno::EINVAL)
    );
    assert_eq!(map_raw(&pamu, 1, 1, 0, PAGE), Err(Errno::EINVAL));
    Ok(())
}

fn mapping_flags() -> Result<()> {
    let (pamu, _engine) = divided(4, PAGE)?;
    for flags in [0, 4, 5, 0x81, 0x201, 0x8000_0003] {
        assert_eq!(
            map_raw(&pamu, flags, 0, 0, PAGE),
            Err(Errno::EINVAL),
            "{flags:#x}"
        );
    }
    let mut bytes = Bytes::new().u32(24).u32(2).u64(0).u64(PAGE);
    let unmapped = raw::bytes(pamu.container(), request::IOMMU_UNMAP_DMA, &mut bytes);
    assert_eq!(unmapped, Err(Errno::EINVAL));
    Ok(())
}

fn window_in_use() -> Result<()> {
    let (pamu, engine) = divided(8, PAGE)?;
    let memory = numbered(3)?;
    pamu.map_part(3 * PAGE, &memory, 0, 4096, MapFlags::Read)?;
    for first in 1..=3 {
        let mapped = pamu.map(first * PAGE, &memory, MapFlags::Read);
        assert_eq!(mapped.errno(), Errno::EEXIST);
    }
    assert_eq!(locked_kib(), 4);
    pamu.map(4 * PAGE, &memory, MapFlags::Read)?;
    pamu.map(0, &memory, MapFlags::Read)?;
    assert_eq!(
        (engine.read(2 * PAGE)?, engine.read(3 * PAGE)?),
        (Ok(3), Ok(1))
    );
    Ok(())
}

/// Pairs of single pages. Some of them happen to be blocks of two pages.
fn memory_is_not_contiguous() -> Result<()> {
    let (pamu, engine) = divided(64, PAGE)?;
    let memory = numbered(64)?;
    pamu.map(0, &memory, MapFlags::Read)?;
    let phys: Vec<_> = pamu.all_windows()?.iter().map(|w| w.phys).collect();
    pamu.unmap(0, 64 * PAGE)?;
    assert!(phys.iter().all(|&phys| phys != 0));

    pamu.set_windows(32)?;
    for (pair, phys) in phys.chunks(2).enumerate() {
        let iova = pair as u64 * 2 * PAGE;
        let mapped = pamu.map_part(iova, &memory, pair * 8192, 8192, MapFlags::Read);
        if phys[0] % (2 * PAGE) != 0 {
            assert_eq!(mapped.errno(), Errno::EINVAL);
        } else if phys[1] != phys[0] + PAGE {
            assert_eq!(mapped.errno(), Errno::EFAULT);
        } else {
            mapped?;
            assert_eq!(engine.read(iova + PAGE)?, Ok(2 * pair as u64 + 2));
        }
    }
    Ok(())
}

fn memory_is_not_accessible() -> Result<()> {
    let (pamu, _engine) = divided(2, PAGE)?;
    let mut memory = Memory::anonymous(4096)?;
    memory.protect(false, false)?;
    assert_eq!(pamu.map(0, &memory, MapFlags::Read).errno(), Errno::EFAULT);
    memory.protect(true, false)?;
    assert_eq!(pamu.map(0, &memory, MapFlags::Write).errno(), Errno::EFAULT);
    pamu.map(0, &memory, MapFlags::Read)?;
    Ok(())
}

fn memory_is_not_aligned() -> Result<()> {
    let (pamu, _engine) = divided(4, HUGE)?;
    let memory = Memory::huge(2 * HUGE as usize, HUGE_ORDER)?;
    for (offset, size) in [
        (PAGE, 2 * PAGE),
        (2 * PAGE, 4 * PAGE),
        (HUGE / 4, HUGE / 2),
        (PAGE, HUGE),
    ] {
        let mapped = pamu.map_part(0, &memory, offset as usize, size as usize, MapFlags::Read);
        assert_eq!(mapped.errno(), Errno::EINVAL, "{offset:#x} {size:#x}");
    }
    assert_eq!(locked_kib(), 0);
    pamu.map_part(0, &memory, 0x8000, 0x8000, MapFlags::Read)?;
    Ok(())
}

fn failed_mapping_maps_nothing() -> Result<()> {
    let (pamu, engine) = divided(8, PAGE)?;
    let memory = numbered(4)?;
    let other = Memory::anonymous(4096)?;
    pamu.map(3 * PAGE, &other, MapFlags::Read)?;
    assert_eq!(pamu.map(0, &memory, MapFlags::Read).errno(), Errno::EEXIST);
    assert_eq!(locked_kib(), 4);
    refused(&pamu, &engine, 0);
    pamu.unmap(3 * PAGE, PAGE)?;
    // The last page of the file is missing.
    let file = tempfile()?;
    file.set_len(4096)?;
    let short = Memory::from_file(&file, 0, 8192, true)?;
    assert_eq!(pamu.map(0, &short, MapFlags::Read).errno(), Errno::EFAULT);
    assert_eq!(locked_kib(), 0);
    assert!(
        pamu.all_windows()?
            .iter()
            .all(|w| w.content == Content::Free)
    );
    unreached(&pamu, &engine, 0);
    Ok(())
}

fn unmap_returns_the_size() -> Result<()> {
    let (pamu, engine) = divided(8, PAGE)?;
    let memory = numbered(6)?;
    pamu.map(PAGE, &memory, MapFlags::Read)?;
    assert_eq!(pamu.unmap(0, PAGE)?, 0);
    assert_eq!(pamu.unmap(7 * PAGE, 1 << 40)?, 0);
    // First unmap the middle, then the pages around it.
    assert_eq!(pamu.unmap(3 * PAGE, 2 * PAGE)?, 2 * PAGE);
    assert_eq!(engine.read(2 * PAGE)?, Ok(2));
    refused(&pamu, &engine, 3 * PAGE);
    refused(&pamu, &engine, 4 * PAGE);
    assert_eq!(engine.read(5 * PAGE)?, Ok(5));
    assert_eq!(locked_kib(), 16);
    assert_eq!(pamu.unmap(0, u64::MAX)?, 4 * PAGE);
    assert_eq!(locked_kib(), 0);
    Ok(())
}

fn part_of_a_window_cannot_be_unmapped() -> Result<()> {
    let (pamu, engine) = divided(4, HUGE)?;
    let memory = Memory::huge(2 * HUGE as usize, HUGE_ORDER)?;
    memory.write_u64(0, 9);
    pamu.map_part(0, &memory, 0, (HUGE + 4 * PAGE) as usize, MapFlags::Read)?;
    for (iova, size) in [
        (0, HUGE - PAGE),
        (PAGE, HUGE),
        (0, HUGE + PAGE),
        (HUGE, PAGE),
        (HUGE + PAGE, HUGE),
    ] {
        assert_eq!(pamu.unmap(iova, size).errno(), Errno::EINVAL, "{iova:#x}");
    }
    assert_eq!(engine.read(0)?, Ok(9));
    // The pages beyond the part are not mapped, so the range need not include them.
    assert_eq!(pamu.unmap(HUGE, 4 * PAGE)?, 4 * PAGE);
    assert_eq!(pamu.unmap(0, HUGE)?, HUGE);
    Ok(())
}

fn unmap_bad_ranges() -> Result<()> {
    let (pamu, _engine) = divided(4, PAGE)?;
    for (iova, size) in [(0, 0), (PAGE, u64::MAX), (u64::MAX, 2)] {
        assert_eq!(pamu.unmap(iova, size).errno(), Errno::EINVAL);
    }
    Ok(())
}

fn locked_memory() -> Result<()> {
    let (pamu, _engine) = divided(256, PAGE)?;
    let memory = numbered(256)?;
    for round in 1..20 {
        let pages = 13 * round;
        pamu.map_part(0, &memory, 0, pages * 4096, MapFlags::Read)?;
        assert_eq!(locked_kib(), 4 * pages as u64);
        pamu.unmap(0, pages as u64 / 2 * PAGE)?;
        assert_eq!(locked_kib(), 4 * (pages - pages / 2) as u64);
        pamu.unmap(0, 256 * PAGE)?;
        assert_eq!(locked_kib(), 0);
    }
    Ok(())
}

fn limit_on_locked_memory() -> Result<()> {
    let (pamu, _engine) = divided(8, PAGE)?;
    let memory = numbered(8)?;
    let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    caps::drop(
        None,
        caps::CapSet::Effective,
        caps::Capability::CAP_IPC_LOCK,
    )?;
    setrlimit(Resource::RLIMIT_MEMLOCK, 5 * PAGE as rlim_t, hard)?;
    let at = |window: u64, pages: usize| {
        pamu.map_part(window * PAGE, &memory, 0, pages * 4096, MapFlags::Read)
    };
    let over = at(0, 6);
    let locked_then = locked_kib();
    let fits = at(0, 5);
    let one_more = at(5, 1);
    pamu.unmap(0, PAGE)?;
    let again = at(5, 1);
    setrlimit(Resource::RLIMIT_MEMLOCK, soft, hard)?;
    caps::raise(
        None,
        caps::CapSet::Effective,
        caps::Capability::CAP_IPC_LOCK,
    )?;

    assert_eq!((over.errno(), locked_then), (Errno::ENOMEM, 0));
    fits?;
    assert_eq!(one_more.errno(), Errno::ENOMEM);
    again?;
    assert_eq!(locked_kib(), 20);
    Ok(())
}

fn closing_the_container_unmaps() -> Result<()> {
    let (pamu, engine) = divided(8, PAGE)?;
    let memory = numbered(8)?;
    pamu.map_part(0, &memory, 0, 4 * 4096, MapFlags::ReadWrite)?;
    pamu.map_bank(1, 6 * PAGE, MapFlags::Write)?;
    drop(pamu);
    // The group still holds the container and its mappings.
    assert_eq!(locked_kib(), 16);
    assert_eq!(engine.read(PAGE)?, Ok(2));
    drop(engine);
    assert_eq!(locked_kib(), 0);
    // The next user finds none of these mappings.
    let (pamu, engine) = divided(8, PAGE)?;
    unreached(&pamu, &engine, PAGE);
    Ok(())
}

fn all_windows() -> Result<()> {
    let (pamu, engine) = divided(256, PAGE)?;
    let memory = numbered(256)?;
    pamu.map(0, &memory, MapFlags::ReadWrite)?;
    for window in 0..256 {
        assert_eq!(engine.read(window * PAGE)?, Ok(window + 1));
    }
    for window in (0..256).step_by(2) {
        assert_eq!(pamu.unmap(window * PAGE, PAGE)?, PAGE);
    }
    for window in (0..256).step_by(2) {
        refused(&pamu, &engine, window * PAGE);
        assert_eq!(engine.read((window + 1) * PAGE)?, Ok(window + 2));
    }
    Ok(())
}

fn iovas_above_4_gib() -> Result<()> {
    let (pamu, engine) = open(0)?;
    let memory = numbered(1)?;
    for (start, end, windows) in [
        (0, (1 << 36) - 1, 256),
        (1 << 40, (1 << 41) - 1, 16),
        (u64::MAX << 20, u64::MAX, 128),
    ] {
        pamu.set_geometry(start, end)?;
        pamu.set_windows(windows)?;
        let last = pamu.window(windows - 1)?.iova;
        for iova in [start, last] {
            pamu.map(iova, &memory, MapFlags::Read)?;
            assert_eq!(engine.read(iova)?, Ok(1));
        }
        refused(&pamu, &engine, start.wrapping_sub(8));
        assert_eq!(pamu.unmap(start, end - start)?, 2 * PAGE);
    }
    Ok(())
}
