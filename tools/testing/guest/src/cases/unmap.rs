// SPDX-License-Identifier: GPL-2.0

//! UNMAP_DMA, with the rules of both versions of type 1.

use crate::{
    env::{
        EDU,
        NVME,
        attached,
        group, //
    },
    harness::{
        Failure,
        cases, //
    },
    helper::Helper,
    leak::locked_kib,
};
use anyhow::Result;
use std::os::fd::{
    AsFd,
    AsRawFd, //
};
use vfio_client::{
    Bytes,
    Container,
    Errno,
    Group,
    Iommu,
    MapFlags,
    Memory,
    PAGE_SIZE,
    raw,
    request, //
};

cases! {
    t_u01_sizes_and_flags,
    t_u04_alignment,
    t_u05_overflow,
    t_u07_no_bisecting,
    t_u08_size_tells_how_much,
    t_u09_all,
    t_u09_all_arguments,
    t_u10_v1_inside,
    t_u11_v1_first_page,
    t_u12_v1_second_half,
    t_u13_vaddr,
    t_u13_vaddr_twice,
    t_u13_vaddr_all,
    t_g1_no_group_joins_while_withdrawn,
    t_m10_vaddr_from_another_process,
    v1_across_mappings,
    v2_whole_address_space,
}

const PAGE: u64 = PAGE_SIZE as u64;
const ALL: u32 = 2;
const VADDR: u32 = 4;

/// Sends UNMAP_DMA and checks that the kernel writes only the size, and nothing if it fails.
fn unmap(
    container: &Container,
    argsz: u32,
    flags: u32,
    iova: u64,
    size: u64,
) -> Result<u64, Errno> {
    let request = |size| Bytes::new().u32(argsz).u32(flags).u64(iova).u64(size);
    let mut bytes = request(size);
    match raw::bytes(container, request::IOMMU_UNMAP_DMA, &mut bytes) {
        Ok(value) => {
            assert_eq!(value, 0);
            let done = bytes.get_u64(16);
            assert_eq!(bytes, request(done));
            Ok(done)
        }
        Err(errno) => {
            assert_eq!(bytes, request(size), "changed although it failed");
            Err(errno)
        }
    }
}

/// A container with four mappings: 4 pages at 0x10000, 2 at 0x14000, 4 at 0x20000 after a hole,
/// and 1 far away.
struct Mapped {
    container: Container,
    _group: Group,
    _memory: Memory,
}

const TOTAL: u64 = 11 * PAGE;

fn mapped(iommu: Iommu) -> Result<Mapped> {
    let (container, group) = attached(EDU, iommu)?;
    let memory = Memory::anonymous(16 * PAGE_SIZE)?;
    for (iova, offset, pages) in [
        (0x10000, 0, 4),
        (0x14000, 4, 2),
        (0x20000, 6, 4),
        (0x1_0000_0000, 10, 1),
    ] {
        container.map_part(
            iova,
            &memory,
            offset * PAGE_SIZE,
            pages * PAGE_SIZE,
            MapFlags::ReadWrite,
        )?;
    }
    assert_eq!(locked_kib(), TOTAL / 1024);
    Ok(Mapped {
        container,
        _group: group,
        _memory: memory,
    })
}

fn t_u01_sizes_and_flags() -> Result<()> {
    let m = mapped(Iommu::Type1v2)?;
    for argsz in [0, 16, 23] {
        assert_eq!(
            unmap(&m.container, argsz, 0, 0x10000, 4 * PAGE),
            Err(Errno::EINVAL)
        );
    }
    for flags in [8, 16, 1 << 31, 1 | ALL, 1 | VADDR] {
        assert_eq!(
            unmap(&m.container, 24, flags, 0x10000, 4 * PAGE),
            Err(Errno::EINVAL)
        );
    }
    assert_eq!(locked_kib(), TOTAL / 1024);
    assert_eq!(
        unmap(&m.container, 4096, 0, 0x10000, 4 * PAGE),
        Ok(4 * PAGE)
    );
    Ok(())
}

fn t_u04_alignment() -> Result<()> {
    for iommu in [Iommu::Type1, Iommu::Type1v2] {
        let m = mapped(iommu)?;
        for (iova, size) in [
            (0x10000, 0),
            (0x10001, 4 * PAGE),
            (0x10800, PAGE),
            (0x10000, 4 * PAGE - 1),
            (0x10000, 1),
            (u64::MAX, PAGE),
            (0, u64::MAX),
        ] {
            assert_eq!(unmap(&m.container, 24, 0, iova, size), Err(Errno::EINVAL));
        }
        assert_eq!(locked_kib(), TOTAL / 1024);
    }
    Ok(())
}

fn t_u05_overflow() -> Result<()> {
    for iommu in [Iommu::Type1, Iommu::Type1v2] {
        let m = mapped(iommu)?;
        let top = u64::MAX - PAGE + 1;
        for (iova, size) in [(top, 2 * PAGE), (0x10000, top)] {
            assert_eq!(
                unmap(&m.container, 24, 0, iova, size),
                Err(Errno::EOVERFLOW)
            );
        }
        // A range may include the last page.
        assert_eq!(unmap(&m.container, 24, 0, top, PAGE), Ok(0));
        assert_eq!(locked_kib(), TOTAL / 1024);
    }
    Ok(())
}

fn t_u07_no_bisecting() -> Result<()> {
    let m = mapped(Iommu::Type1v2)?;
    for (iova, pages) in [
        (0x10000, 1),
        (0x10000, 3),
        (0x11000, 1),
        (0x13000, 1),
        (0x13000, 2),
        (0x11000, 3),
        (0x10000, 5),
        (0x0f000, 4),
        (0x15000, 16),
        (0x10000, 17),
    ] {
        assert_eq!(
            unmap(&m.container, 24, 0, iova, pages * PAGE),
            Err(Errno::EINVAL),
            "{iova:#x} {pages}"
        );
    }
    assert_eq!(locked_kib(), TOTAL / 1024, "nothing went");
    Ok(())
}

fn t_u08_size_tells_how_much() -> Result<()> {
    let m = mapped(Iommu::Type1v2)?;
    assert_eq!(unmap(&m.container, 24, 0, 0x16000, 10 * PAGE), Ok(0));
    assert_eq!(unmap(&m.container, 24, 0, 0, 16 * PAGE), Ok(0));
    // Two adjacent mappings, and holes at both ends.
    assert_eq!(unmap(&m.container, 24, 0, 0xe000, 16 * PAGE), Ok(6 * PAGE));
    assert_eq!(unmap(&m.container, 24, 0, 0xe000, 16 * PAGE), Ok(0));
    assert_eq!(unmap(&m.container, 24, 0, 0x20000, 4 * PAGE), Ok(4 * PAGE));
    assert_eq!(locked_kib(), 4);
    Ok(())
}

fn t_u09_all() -> Result<()> {
    for iommu in [Iommu::Type1, Iommu::Type1v2] {
        let m = mapped(iommu)?;
        assert_eq!(unmap(&m.container, 24, ALL, 0, 0), Ok(TOTAL));
        assert_eq!(unmap(&m.container, 24, ALL, 0, 0), Ok(0));
        assert_eq!(locked_kib(), 0);
    }
    Ok(())
}

fn t_u09_all_arguments() -> Result<()> {
    let m = mapped(Iommu::Type1v2)?;
    for (iova, size) in [(PAGE, 0), (0, PAGE), (0x10000, 4 * PAGE), (0, u64::MAX)] {
        assert_eq!(unmap(&m.container, 24, ALL, iova, size), Err(Errno::EINVAL));
    }
    assert_eq!(locked_kib(), TOTAL / 1024);
    Ok(())
}

fn t_u10_v1_inside() -> Result<()> {
    let m = mapped(Iommu::Type1)?;
    for (iova, pages) in [(0x11000, 1), (0x11000, 3), (0x13000, 1), (0x11000, 16)] {
        assert_eq!(
            unmap(&m.container, 24, 0, iova, pages * PAGE),
            Ok(0),
            "{iova:#x} {pages}"
        );
    }
    assert_eq!(locked_kib(), TOTAL / 1024);
    Ok(())
}

fn t_u11_v1_first_page() -> Result<()> {
    let m = mapped(Iommu::Type1)?;
    assert_eq!(unmap(&m.container, 24, 0, 0x10000, PAGE), Ok(4 * PAGE));
    assert_eq!(unmap(&m.container, 24, 0, 0x1f000, 2 * PAGE), Ok(4 * PAGE));
    assert_eq!(locked_kib(), 12);
    Ok(())
}

fn t_u12_v1_second_half() -> Result<()> {
    let m = mapped(Iommu::Type1)?;
    assert_eq!(unmap(&m.container, 24, 0, 0x20000, 2 * PAGE), Ok(4 * PAGE));
    assert_eq!(unmap(&m.container, 24, 0, 0x22000, 2 * PAGE), Ok(0));
    Ok(())
}

fn t_u13_vaddr() -> Result<()> {
    for iommu in [Iommu::Type1, Iommu::Type1v2] {
        let m = mapped(iommu)?;
        assert_eq!(
            unmap(&m.container, 24, VADDR, 0x10000, 6 * PAGE),
            Ok(6 * PAGE)
        );
        assert_eq!(locked_kib(), TOTAL / 1024, "the device keeps it");
        let avail = m.container.info()?.dma_avail();
        assert_eq!(avail, Some(65535 - 4));
        // An ordinary unmap also removes mappings with an invalid vaddr.
        assert_eq!(unmap(&m.container, 24, ALL, 0, 0), Ok(TOTAL));
    }
    Ok(())
}

fn t_u13_vaddr_twice() -> Result<()> {
    let m = mapped(Iommu::Type1v2)?;
    assert_eq!(
        unmap(&m.container, 24, VADDR, 0x14000, 2 * PAGE),
        Ok(2 * PAGE)
    );
    assert_eq!(
        unmap(&m.container, 24, VADDR, 0x10000, 6 * PAGE),
        Err(Errno::EINVAL)
    );
    // The failed request has made the vaddrs that it invalidated valid again.
    assert_eq!(
        unmap(&m.container, 24, VADDR, 0x10000, 4 * PAGE),
        Ok(4 * PAGE)
    );
    Ok(())
}

fn t_u13_vaddr_all() -> Result<()> {
    let m = mapped(Iommu::Type1v2)?;
    assert_eq!(unmap(&m.container, 24, VADDR | ALL, 0, 0), Ok(TOTAL));
    assert_eq!(
        unmap(&m.container, 24, VADDR | ALL, 0, 0),
        Err(Errno::EINVAL)
    );
    assert_eq!(locked_kib(), TOTAL / 1024);
    Ok(())
}

fn v1_across_mappings() -> Result<()> {
    let m = mapped(Iommu::Type1)?;
    // A range from a hole across two mappings into a third one: all three are unmapped.
    assert_eq!(
        unmap(&m.container, 24, 0, 0xf000, 0x22000 - 0xf000),
        Ok(10 * PAGE)
    );
    assert_eq!(locked_kib(), 4);
    Ok(())
}

fn v2_whole_address_space() -> Result<()> {
    let m = mapped(Iommu::Type1v2)?;
    assert_eq!(unmap(&m.container, 24, 0, 0, 1 << 63), Ok(TOTAL));
    assert_eq!(unmap(&m.container, 24, 0, 1 << 63, 1 << 63), Ok(0));
    Ok(())
}

fn t_g1_no_group_joins_while_withdrawn() -> Result<()> {
    let m = mapped(Iommu::Type1v2)?;
    assert_eq!(
        unmap(&m.container, 24, VADDR, 0x10000, 6 * PAGE),
        Ok(6 * PAGE)
    );
    let other = group(NVME)?;
    assert_eq!(other.set_container(&m.container).errno(), Errno::EBUSY);
    assert_eq!(other.status()?, 1, "it is free as before");
    assert_eq!(unmap(&m.container, 24, ALL, 0, 0), Ok(TOTAL));
    other.set_container(&m.container)?;
    Ok(())
}

fn t_m10_vaddr_from_another_process() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    let memory = Memory::anonymous(4 * PAGE_SIZE)?;
    container.map(0x10000, &memory, MapFlags::ReadWrite)?;
    assert_eq!(
        unmap(&container, 24, VADDR, 0x10000, 4 * PAGE),
        Ok(4 * PAGE)
    );
    let fd = container.as_fd().try_clone_to_owned()?;
    let take_over = |limit: &str| -> Result<(Helper, String)> {
        let words = ["take-over", &fd.as_raw_fd().to_string(), "65536", limit];
        let mut helper = Helper::spawn(&words, &[&fd])?;
        let answer = format!("{}, {} KiB", helper.line()?, helper.line()?);
        Ok((helper, answer))
    };
    let (helper, answer) = take_over("3")?;
    assert_eq!((answer.as_str(), locked_kib()), ("ENOMEM, 0 KiB", 16));
    helper.finish()?;
    // The process that now provides the memory is charged for it.
    let (helper, answer) = take_over("4")?;
    assert_eq!((answer.as_str(), locked_kib()), ("OK, 16 KiB", 0));
    helper.finish()?;
    assert_eq!(container.unmap(0x10000, 4 * PAGE)?, 4 * PAGE);
    Ok(())
}
