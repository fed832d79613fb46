// SPDX-License-Identifier: GPL-2.0

//! Pages that a driver pins, and its reads and writes of user memory.

use super::pinned::{
    track,
    written, //
};
use crate::{
    harness::{
        Failure,
        cases, //
    },
    pin::{
        IOVA,
        Pinning,
        READ,
        WRITE,
        mapped,
        mapped_for, //
    },
};
use anyhow::Result;
use support::{
    PAGE,
    helper::Helper,
    machine::locked_pages,
    requests::{
        DirtyPages,
        UnmapDma, //
    },
};
use vfio_client::{
    Errno, Iommu, MapFlags, Memory, PAGE_SIZE,
    edu::{
        self,
        Edu, //
    },
};

cases! {
    #[rows("T-X1")] pin_pages,
    #[rows("T-X1")] pin_count_limits,
    #[rows("T-X1")] type1_v1_refuses_pins,
    #[rows("T-X1")] pin_range_overflow,
    #[rows("T-X1")] pin_unmapped_range,
    #[rows("T-X1")] pin_respects_mapping_permissions,
    #[rows("T-X1")] pin_inaccessible_memory,
    #[rows("T-X1")] pin_memory_of_other_process,
    #[rows("T-X2")] pin_twice,
    #[rows("T-X3")] pin_all_or_nothing,
    #[rows("T-X1")] #[requires(driver(C))] pin_without_prot,
    #[rows("T-X4")] #[requires(driver(C))] unpin_of_unpinned_pages,
    #[rows("T-X5")] dma_rw,
    #[rows("T-X5")] dma_rw_across_mappings,
    #[rows("T-X5")] dma_rw_respects_mapping_permissions,
    #[rows("T-X5")] dma_rw_of_unmapped_range,
    #[rows("T-X5")] dma_rw_of_other_process,
    #[rows("T-X5")] dma_rw_large,
    #[rows("T-X6")] unmap_notifies_driver,
    #[rows("T-X6")] unmap_of_many_mappings_notifies_driver,
    #[rows("T-X6")] close_unpins_all_pages,
    #[rows("T-U3")] vaddr_cannot_be_invalidated,
    pin_beside_hardware,
}

fn pin_pages() -> Result<()> {
    let (pinning, memory) = mapped(8)?;
    let pinner = &pinning.pinner;
    memory.write_u64(0x3000, 0x1234_5678_9abc_def0);
    assert_eq!(
        pinner.pin(IOVA + 0x3000, 2, READ | WRITE)?,
        (2, 0x1234_5678_9abc_def0)
    );
    assert_eq!(pinner.pinned()?, 2);
    assert_eq!(locked_pages(), 2);
    // The driver accesses the page itself, not a copy.
    pinner.poke(IOVA + 0x3000, 77)?;
    assert_eq!(memory.read_u64(0x3000), 77);
    pinner.unpin(IOVA, 8)?;
    assert_eq!((pinner.pinned()?, locked_pages()), (0, 0));
    Ok(())
}

fn pin_count_limits() -> Result<()> {
    let (pinning, _memory) = mapped(520)?;
    let pinner = &pinning.pinner;
    assert_eq!(pinner.pin(IOVA, 0, READ).errno(), Errno::EINVAL);
    assert_eq!(pinner.pin(IOVA, 513, READ).errno(), Errno::E2BIG);
    assert_eq!(pinner.pin(IOVA, 512, READ | WRITE)?.0, 512);
    assert_eq!((pinner.pinned()?, locked_pages()), (512, 512));
    assert_eq!(pinner.pin(IOVA + 512 * PAGE, 8, READ)?.0, 8);
    assert_eq!((pinner.pinned()?, locked_pages()), (520, 520));
    Ok(())
}

fn type1_v1_refuses_pins() -> Result<()> {
    let pinning = Pinning::alone(Iommu::Type1)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    pinning.container.map(IOVA, &memory, MapFlags::ReadWrite)?;
    assert_eq!(pinning.pinner.pin(IOVA, 1, READ).errno(), Errno::EACCES);
    assert_eq!(pinning.pinner.pin(0, 1, READ).errno(), Errno::EACCES);
    // Reading and writing work nevertheless.
    pinning.pinner.write(IOVA + 5, b"first version")?;
    assert_eq!(memory.to_vec(5, 13), b"first version");
    assert_eq!(pinning.pinner.read(IOVA + 5, 5)?, b"first");
    Ok(())
}

fn pin_range_overflow() -> Result<()> {
    let (pinning, memory) = mapped(1)?;
    let last = u64::MAX - (PAGE - 1);
    assert_eq!(pinning.pinner.pin(last, 2, READ).errno(), Errno::EOVERFLOW);
    assert_eq!(pinning.pinner.pin(last, 1, READ).errno(), Errno::EINVAL);
    pinning.container.map(last, &memory, MapFlags::ReadWrite)?;
    assert_eq!(pinning.pinner.pin(last, 1, READ)?.0, 1);
    Ok(())
}

fn pin_unmapped_range() -> Result<()> {
    let (pinning, _memory) = mapped(1)?;
    for iova in [0, IOVA - PAGE, IOVA + PAGE, 1 << 60] {
        let pin = pinning.pinner.pin(iova, 1, READ);
        assert_eq!(pin.errno(), Errno::EINVAL, "{iova:#x}");
    }
    pinning.container.unmap(IOVA, PAGE)?;
    assert_eq!(pinning.pinner.pin(IOVA, 1, READ).errno(), Errno::EINVAL);
    Ok(())
}

fn pin_respects_mapping_permissions() -> Result<()> {
    for (flags, allowed) in [
        (MapFlags::Read, READ),
        (MapFlags::Write, WRITE),
        (MapFlags::ReadWrite, READ | WRITE),
    ] {
        let (pinning, _memory) = mapped_for(flags, 1)?;
        for wanted in [READ, WRITE, READ | WRITE] {
            let pin = pinning.pinner.pin(IOVA, 1, wanted).map(|(count, _)| count);
            let expected = if wanted & !allowed == 0 {
                Ok(1)
            } else {
                Err(Errno::EPERM)
            };
            assert_eq!(pin, expected, "{wanted} of {flags:?}");
            pinning.pinner.unpin(IOVA, 1)?;
        }
    }
    Ok(())
}

/// A Rust driver cannot omit the protection flags.
fn pin_without_prot() -> Result<()> {
    for flags in [MapFlags::Read, MapFlags::Write, MapFlags::ReadWrite] {
        let (pinning, _memory) = mapped_for(flags, 1)?;
        assert_eq!(pinning.pinner.pin(IOVA, 1, 0)?.0, 1, "{flags:?}");
    }
    Ok(())
}

/// An inaccessible page is detected when it is pinned, not when it is mapped.
fn pin_inaccessible_memory() -> Result<()> {
    let (pinning, mut memory) = mapped(2)?;
    memory.protect(true, false)?;
    assert_eq!(pinning.pinner.pin(IOVA, 1, READ).errno(), Errno::EFAULT);
    memory.protect(true, true)?;
    assert_eq!(pinning.pinner.pin(IOVA, 1, READ)?.0, 1);
    memory.protect(false, false)?;
    assert_eq!(
        pinning.pinner.pin(IOVA + PAGE, 1, READ).errno(),
        Errno::EFAULT
    );
    assert_eq!(
        pinning.pinner.pin(IOVA, 1, READ)?.0,
        1,
        "it was pinned before"
    );
    Ok(())
}

/// Starts a process that maps 4 pages of its own into the container of this process.
fn mapper(pinning: &Pinning) -> Result<Helper> {
    use std::os::fd::{
        AsFd,
        AsRawFd, //
    };
    let fd = pinning.container.as_fd().try_clone_to_owned()?;
    let number = fd.as_raw_fd().to_string();
    let mut helper = Helper::spawn(&["map", &number, &IOVA.to_string()], &[&fd])?;
    assert_eq!(helper.line()?, "OK");
    assert_eq!(helper.line()?, "0", "nothing is pinned");
    Ok(helper)
}

fn pin_memory_of_other_process() -> Result<()> {
    let pinning = Pinning::new()?;
    let mut helper = mapper(&pinning)?;
    // The page belongs to the process that mapped it, and is charged to it.
    assert_eq!(
        pinning.pinner.pin(IOVA, 2, READ | WRITE)?,
        (2, 0xc5c5_c5c5_c5c5_c5c5)
    );
    assert_eq!(locked_pages(), 0);
    pinning.pinner.poke(IOVA, 0x99)?;
    helper.proceed()?;
    assert_eq!(helper.line()?, "0x99");
    helper.kill()?;
    let gone = pinning.pinner.pin(IOVA + 2 * PAGE, 1, READ);
    assert_eq!(gone.errno(), Errno::ENODEV);
    assert_eq!(
        pinning.pinner.pin(IOVA, 1, READ)?,
        (1, 0x99),
        "it was pinned before"
    );
    assert_eq!(pinning.container.unmap(IOVA, 4 * PAGE)?, 4 * PAGE);
    assert_eq!(pinning.pinner.pinned()?, 0);
    Ok(())
}

fn pin_twice() -> Result<()> {
    let (pinning, memory) = mapped(4)?;
    let pinner = &pinning.pinner;
    // The driver checks that it gets the same page, and drops one of the two references.
    for _ in 0..3 {
        memory.write_u64(0, memory.read_u64(0) + 1);
        let word = memory.read_u64(0);
        assert_eq!(pinner.pin(IOVA, 4, READ | WRITE)?, (4, word));
        assert_eq!((pinner.pinned()?, locked_pages()), (4, 4));
    }
    // This holds even if the process has other memory at the address by now.
    memory.discard()?;
    assert_eq!(memory.read_u64(0), 0);
    assert_eq!(pinner.pin(IOVA, 1, READ)?, (1, 3));
    pinner.unpin(IOVA, 4)?;
    assert_eq!((pinner.pinned()?, locked_pages()), (0, 0));
    assert_eq!(pinner.pin(IOVA, 1, READ)?, (1, 0));
    Ok(())
}

fn pin_all_or_nothing() -> Result<()> {
    let (pinning, memory) = mapped(4)?;
    let pinner = &pinning.pinner;
    assert_eq!(pinner.pin(IOVA, 5, READ).errno(), Errno::EINVAL);
    assert_eq!(locked_pages(), 0);
    pinning
        .container
        .map_part(IOVA + 4 * PAGE, &memory, 0, PAGE_SIZE, MapFlags::Read)?;
    assert_eq!(pinner.pin(IOVA, 5, WRITE).errno(), Errno::EPERM);
    assert_eq!(locked_pages(), 0);
    // Pages that were pinned before stay pinned.
    assert_eq!(pinner.pin(IOVA + PAGE, 2, READ)?.0, 2);
    assert_eq!(pinner.pin(IOVA, 6, READ).errno(), Errno::EINVAL);
    assert_eq!((pinner.pinned()?, locked_pages()), (2, 2));
    let before = pinner.unmaps()?;
    pinning.container.unmap(IOVA + 4 * PAGE, PAGE)?;
    assert_eq!(pinner.unmaps()?, before, "nothing is pinned there");
    assert_eq!(
        pinner.pin(IOVA, 4, READ)?.0,
        4,
        "a range with pinned and other pages"
    );
    assert_eq!(locked_pages(), 4);
    Ok(())
}

fn unpin_of_unpinned_pages() -> Result<()> {
    let (pinning, _memory) = mapped(4)?;
    let pinner = &pinning.pinner;
    assert_eq!(pinner.unpin_stray(IOVA, 4)?, 0);
    assert_eq!(locked_pages(), 0);
    assert_eq!(pinner.pin(IOVA, 1, READ)?.0, 1);
    assert_eq!(pinner.unpin_stray(IOVA + PAGE, 3)?, 0);
    assert_eq!(locked_pages(), 1);
    assert_eq!(pinner.unpin_stray(IOVA, 4)?, 0);
    assert_eq!(locked_pages(), 0, "one of them was pinned");
    Ok(())
}

fn dma_rw() -> Result<()> {
    let (pinning, memory) = mapped(4)?;
    let pinner = &pinning.pinner;
    let text: Vec<u8> = (0..=255).cycle().take(PAGE_SIZE * 4).collect();
    memory.write(0, &text);
    for (offset, len) in [
        (0, 1),
        (3, 8),
        (4090, 12),
        (1, 4 * PAGE_SIZE - 1),
        (4095, 1),
        (7, 4097),
    ] {
        let read = pinner.read(IOVA + offset as u64, len)?;
        assert_eq!(read, &text[offset..offset + len], "{len} bytes at {offset}");
    }
    for (offset, len) in [(0, 1), (4095, 2), (4093, 8200), (2, 7)] {
        memory.fill(0, memory.len(), 0xee);
        pinner.write(IOVA + offset as u64, &text[..len])?;
        let end = offset + len;
        assert_eq!(memory.to_vec(offset, len), &text[..len]);
        assert!(memory.to_vec(0, offset).iter().all(|&byte| byte == 0xee));
        assert!(memory.to_vec(end, 64).iter().all(|&byte| byte == 0xee));
    }
    assert_eq!(locked_pages(), 0, "reads and writes pin nothing");
    Ok(())
}

fn dma_rw_across_mappings() -> Result<()> {
    let (pinning, first) = mapped(2)?;
    let second = Memory::anonymous(2 * PAGE_SIZE)?;
    pinning
        .container
        .map(IOVA + 2 * PAGE, &second, MapFlags::ReadWrite)?;
    pinning.pinner.write(IOVA + 2 * PAGE - 3, b"abcdef")?;
    assert_eq!(first.to_vec(2 * PAGE_SIZE - 3, 3), b"abc");
    assert_eq!(second.to_vec(0, 3), b"def");
    assert_eq!(pinning.pinner.read(IOVA + 2 * PAGE - 2, 4)?, b"bcde");
    Ok(())
}

fn dma_rw_respects_mapping_permissions() -> Result<()> {
    for (flags, read, write) in [
        (MapFlags::Read, Ok(()), Err(Errno::EPERM)),
        (MapFlags::ReadWrite, Ok(()), Ok(())),
        (MapFlags::Write, Err(Errno::EPERM), Err(Errno::EPERM)),
    ] {
        let (pinning, memory) = mapped_for(flags, 1)?;
        assert_eq!(pinning.pinner.read(IOVA, 8).map(drop), read, "{flags:?}");
        assert_eq!(
            pinning.pinner.write(IOVA, b"x").map(drop),
            write,
            "{flags:?}"
        );
        let expected = if write.is_ok() { b'x' } else { 0 };
        assert_eq!(memory.read_u8(0), expected);
    }
    // This holds also for accesses that the process itself is not allowed.
    let (pinning, mut memory) = mapped(1)?;
    memory.protect(true, false)?;
    assert_eq!(pinning.pinner.write(IOVA, b"x").errno(), Errno::EFAULT);
    assert_eq!(pinning.pinner.read(IOVA, 1)?, [0]);
    memory.protect(false, false)?;
    assert_eq!(pinning.pinner.read(IOVA, 1).errno(), Errno::EFAULT);
    Ok(())
}

fn dma_rw_of_unmapped_range() -> Result<()> {
    let (pinning, memory) = mapped(2)?;
    let pinner = &pinning.pinner;
    assert_eq!(pinner.read(0, 1).errno(), Errno::EINVAL);
    assert_eq!(pinner.write(0, b"x").errno(), Errno::EINVAL);
    assert_eq!(pinner.read(IOVA - 1, 1).errno(), Errno::EINVAL);
    assert_eq!(pinner.read(IOVA + 2 * PAGE - 1, 2).errno(), Errno::EINVAL);
    // The part that fits was written nevertheless.
    assert_eq!(
        pinner.write(IOVA + 2 * PAGE - 1, b"yz").errno(),
        Errno::EINVAL
    );
    assert_eq!(memory.read_u8(2 * PAGE_SIZE - 1), b'y');
    assert_eq!(pinner.read(IOVA, 0).errno(), Errno::EINVAL, "zero bytes");
    Ok(())
}

fn dma_rw_of_other_process() -> Result<()> {
    let pinning = Pinning::new()?;
    let helper = mapper(&pinning)?;
    track(&pinning.container, DirtyPages::START)?;
    assert_eq!(pinning.pinner.read(IOVA, 8).errno(), Errno::EFAULT);
    assert_eq!(pinning.pinner.write(IOVA, b"x").errno(), Errno::EFAULT);
    assert_eq!(written(&pinning.container, 4)?, 0);
    helper.kill()?;
    assert_eq!(pinning.pinner.read(IOVA, 8).errno(), Errno::EPERM);
    Ok(())
}

fn dma_rw_large() -> Result<()> {
    let (pinning, memory) = mapped(300)?;
    let size = 1 << 20;
    let text: Vec<u8> = (0u32..size as u32 / 4).flat_map(u32::to_ne_bytes).collect();
    pinning.pinner.write(IOVA + 0x123, &text)?;
    assert_eq!(memory.to_vec(0x123, size), text);
    assert_eq!(pinning.pinner.read(IOVA + 0x123, size)?, text);
    Ok(())
}

fn unmap_notifies_driver() -> Result<()> {
    let (pinning, memory) = mapped(4)?;
    let other = IOVA + 0x10_0000;
    pinning.container.map(other, &memory, MapFlags::ReadWrite)?;
    let pinner = &pinning.pinner;
    let before = pinner.unmaps()?;
    let told = || pinner.unmaps().map(|count| count - before);
    assert_eq!(pinner.pin(IOVA + PAGE, 2, READ)?.0, 2);
    assert_eq!(pinning.container.unmap(other, 4 * PAGE)?, 4 * PAGE);
    assert_eq!(told()?, 0, "nothing was pinned there");
    assert_eq!(pinning.container.unmap(IOVA, 4 * PAGE)?, 4 * PAGE);
    assert_eq!((told()?, pinner.pinned()?, locked_pages()), (1, 0, 0));
    // Two mappings, both with pinned pages.
    pinning.container.map(IOVA, &memory, MapFlags::ReadWrite)?;
    pinning.container.map(other, &memory, MapFlags::ReadWrite)?;
    assert_eq!(
        (pinner.pin(IOVA, 4, READ)?.0, pinner.pin(other, 4, READ)?.0),
        (4, 4)
    );
    assert_eq!(locked_pages(), 8, "each mapping is charged");
    assert_eq!(pinning.container.unmap_all()?, 8 * PAGE);
    assert_eq!((told()?, pinner.pinned()?, locked_pages()), (3, 0, 0));
    Ok(())
}

/// The driver has pinned a page of each mapping, and is notified of each once.
fn unmap_of_many_mappings_notifies_driver() -> Result<()> {
    const COUNT: u64 = 4096;
    const AT_ONCE: u32 = 512;
    let pinning = Pinning::new()?;
    let (pinner, container) = (&pinning.pinner, &pinning.container);
    let memory = Memory::anonymous(PAGE_SIZE)?;
    for page in 0..COUNT {
        container.map(IOVA + page * PAGE, &memory, MapFlags::ReadWrite)?;
    }
    for page in (0..COUNT).step_by(AT_ONCE as usize) {
        assert_eq!(
            pinner.pin(IOVA + page * PAGE, AT_ONCE, READ)?.0,
            AT_ONCE as i32
        );
    }
    let before = pinner.unmaps()?;
    assert_eq!(container.unmap_all()?, COUNT * PAGE);
    assert_eq!(pinner.unmaps()? - before, COUNT as i32);
    assert_eq!((pinner.pinned()?, locked_pages()), (0, 0));
    Ok(())
}

fn close_unpins_all_pages() -> Result<()> {
    let (pinning, _memory) = mapped(4)?;
    assert_eq!(pinning.pinner.pin(IOVA, 4, READ)?.0, 4);
    drop(pinning.pinner);
    assert_eq!(locked_pages(), 0);
    assert_eq!(pinning.container.unmap_all()?, 4 * PAGE);
    Ok(())
}

fn vaddr_cannot_be_invalidated() -> Result<()> {
    let (pinning, _memory) = mapped(1)?;
    let invalidate = UnmapDma {
        flags: UnmapDma::VADDR,
        ..UnmapDma::of(IOVA, PAGE)
    };
    assert_eq!(invalidate.send(&pinning.container), Err(Errno::EBUSY));
    assert_eq!(pinning.pinner.pin(IOVA, 1, READ)?.0, 1);
    Ok(())
}

/// The driver and a device access the same memory.
fn pin_beside_hardware() -> Result<()> {
    let (pinning, memory) = mapped(4)?;
    let pinner = &pinning.pinner;
    assert_eq!(pinner.pin(IOVA, 2, READ | WRITE)?.0, 2);
    let (_group, device) = pinning.join_edu()?;
    let edu = Edu::new(&device)?;
    pinner.poke(IOVA + PAGE, 0xabcd_ef01_2345_6789)?;
    edu.load(IOVA + PAGE, edu::MEMORY as u64)?;
    edu.store(IOVA + 3 * PAGE, edu::MEMORY as u64)?;
    assert_eq!(
        pinner.pin(IOVA + 3 * PAGE, 1, READ)?,
        (1, 0xabcd_ef01_2345_6789)
    );
    edu.store(IOVA, edu::MEMORY as u64)?;
    assert_eq!(
        pinner.read(IOVA, 8)?,
        0xabcd_ef01_2345_6789u64.to_ne_bytes()
    );
    pinner.write(IOVA + 8, &[7; 8])?;
    assert_eq!(memory.read_u64(8), 0x0707_0707_0707_0707);
    let before = pinner.unmaps()?;
    assert_eq!(pinning.container.unmap(IOVA, 4 * PAGE)?, 4 * PAGE);
    assert_eq!((pinner.unmaps()? - before, pinner.pinned()?), (1, 0));
    Ok(())
}
