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
};
use anyhow::Result;
use std::os::fd::{
    AsFd,
    AsRawFd, //
};
use support::{
    PAGE,
    helper::Helper,
    machine::locked_pages,
    requests::UnmapDma, //
};
use vfio_client::{
    Container,
    Errno,
    Group,
    Iommu,
    MapFlags,
    Memory,
    PAGE_SIZE, //
};

cases! {
    #[rows("T-U1")] argsz_and_unknown_flags,
    #[rows("T-U4")] misaligned_range,
    #[rows("T-U5")] range_overflow,
    #[rows("T-U7")] v2_refuses_part_of_mapping,
    #[rows("T-U8")] size_returns_unmapped_bytes,
    #[rows("T-U9")] unmap_all,
    #[rows("T-U9")] unmap_all_needs_empty_range,
    #[rows("T-U10")] v1_ignores_range_inside_mapping,
    #[rows("T-U11")] v1_first_page_unmaps_whole_mapping,
    #[rows("T-U12")] v1_first_half_unmaps_whole_mapping,
    #[rows("T-U13")] vaddr_is_invalidated,
    #[rows("T-U13")] vaddr_invalidated_twice,
    #[rows("T-U13")] all_vaddrs_invalidated,
    #[rows("T-G1")] no_group_joins_while_vaddr_is_invalid,
    #[rows("T-M10")] vaddr_updated_by_another_process,
    v1_range_across_mappings,
    v2_whole_address_space,
}

/// A container with four mappings: 4 pages at 0x10 * PAGE, 2 at 0x14 * PAGE, 4 at 0x20 * PAGE after a hole,
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
        (0x10 * PAGE, 0, 4),
        (0x14 * PAGE, 4, 2),
        (0x20 * PAGE, 6, 4),
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
    assert_eq!(locked_pages(), TOTAL / PAGE);
    Ok(Mapped {
        container,
        _group: group,
        _memory: memory,
    })
}

fn argsz_and_unknown_flags() -> Result<()> {
    let m = mapped(Iommu::Type1v2)?;
    for argsz in [0, 16, 23] {
        assert_eq!(
            UnmapDma {
                argsz,
                ..UnmapDma::of(0x10 * PAGE, 4 * PAGE)
            }
            .send(&m.container),
            Err(Errno::EINVAL)
        );
    }
    for flags in [
        8,
        16,
        1 << 31,
        UnmapDma::GET_DIRTY_BITMAP | UnmapDma::ALL,
        UnmapDma::GET_DIRTY_BITMAP | UnmapDma::VADDR,
    ] {
        assert_eq!(
            UnmapDma {
                flags,
                ..UnmapDma::of(0x10 * PAGE, 4 * PAGE)
            }
            .send(&m.container),
            Err(Errno::EINVAL)
        );
    }
    assert_eq!(locked_pages(), TOTAL / PAGE);
    assert_eq!(
        UnmapDma {
            argsz: 4096,
            ..UnmapDma::of(0x10 * PAGE, 4 * PAGE)
        }
        .send(&m.container),
        Ok(4 * PAGE)
    );
    Ok(())
}

fn misaligned_range() -> Result<()> {
    for iommu in [Iommu::Type1, Iommu::Type1v2] {
        let m = mapped(iommu)?;
        for (iova, size) in [
            (0x10 * PAGE, 0),
            (0x10 * PAGE + 0x1, 4 * PAGE),
            (0x10 * PAGE + 0x800, PAGE),
            (0x10 * PAGE, 4 * PAGE - 1),
            (0x10 * PAGE, 1),
            (u64::MAX, PAGE),
            (0, u64::MAX),
        ] {
            assert_eq!(
                UnmapDma::of(iova, size).send(&m.container),
                Err(Errno::EINVAL)
            );
        }
        assert_eq!(locked_pages(), TOTAL / PAGE);
    }
    Ok(())
}

fn range_overflow() -> Result<()> {
    for iommu in [Iommu::Type1, Iommu::Type1v2] {
        let m = mapped(iommu)?;
        let top = u64::MAX - PAGE + 1;
        for (iova, size) in [(top, 2 * PAGE), (0x10 * PAGE, top)] {
            assert_eq!(
                UnmapDma::of(iova, size).send(&m.container),
                Err(Errno::EOVERFLOW)
            );
        }
        // A range may include the last page.
        assert_eq!(UnmapDma::of(top, PAGE).send(&m.container), Ok(0));
        assert_eq!(locked_pages(), TOTAL / PAGE);
    }
    Ok(())
}

fn v2_refuses_part_of_mapping() -> Result<()> {
    let m = mapped(Iommu::Type1v2)?;
    for (iova, pages) in [
        (0x10 * PAGE, 1),
        (0x10 * PAGE, 3),
        (0x11 * PAGE, 1),
        (0x13 * PAGE, 1),
        (0x13 * PAGE, 2),
        (0x11 * PAGE, 3),
        (0x10 * PAGE, 5),
        (0xf * PAGE, 4),
        (0x15 * PAGE, 16),
        (0x10 * PAGE, 17),
    ] {
        assert_eq!(
            UnmapDma::of(iova, pages * PAGE).send(&m.container),
            Err(Errno::EINVAL),
            "{iova:#x} {pages}"
        );
    }
    assert_eq!(locked_pages(), TOTAL / PAGE, "nothing was unmapped");
    Ok(())
}

fn size_returns_unmapped_bytes() -> Result<()> {
    let m = mapped(Iommu::Type1v2)?;
    assert_eq!(
        UnmapDma::of(0x16 * PAGE, 10 * PAGE).send(&m.container),
        Ok(0)
    );
    assert_eq!(UnmapDma::of(0, 16 * PAGE).send(&m.container), Ok(0));
    // Two adjacent mappings, and holes at both ends.
    assert_eq!(
        UnmapDma::of(0xe * PAGE, 16 * PAGE).send(&m.container),
        Ok(6 * PAGE)
    );
    assert_eq!(
        UnmapDma::of(0xe * PAGE, 16 * PAGE).send(&m.container),
        Ok(0)
    );
    assert_eq!(
        UnmapDma::of(0x20 * PAGE, 4 * PAGE).send(&m.container),
        Ok(4 * PAGE)
    );
    assert_eq!(locked_pages(), 1);
    Ok(())
}

fn unmap_all() -> Result<()> {
    for iommu in [Iommu::Type1, Iommu::Type1v2] {
        let m = mapped(iommu)?;
        assert_eq!(UnmapDma::all().send(&m.container), Ok(TOTAL));
        assert_eq!(UnmapDma::all().send(&m.container), Ok(0));
        assert_eq!(locked_pages(), 0);
    }
    Ok(())
}

fn unmap_all_needs_empty_range() -> Result<()> {
    let m = mapped(Iommu::Type1v2)?;
    for (iova, size) in [(PAGE, 0), (0, PAGE), (0x10 * PAGE, 4 * PAGE), (0, u64::MAX)] {
        assert_eq!(
            UnmapDma {
                flags: UnmapDma::ALL,
                ..UnmapDma::of(iova, size)
            }
            .send(&m.container),
            Err(Errno::EINVAL)
        );
    }
    assert_eq!(locked_pages(), TOTAL / PAGE);
    Ok(())
}

fn v1_ignores_range_inside_mapping() -> Result<()> {
    let m = mapped(Iommu::Type1)?;
    for (iova, pages) in [
        (0x11 * PAGE, 1),
        (0x11 * PAGE, 3),
        (0x13 * PAGE, 1),
        (0x11 * PAGE, 16),
    ] {
        assert_eq!(
            UnmapDma::of(iova, pages * PAGE).send(&m.container),
            Ok(0),
            "{iova:#x} {pages}"
        );
    }
    assert_eq!(locked_pages(), TOTAL / PAGE);
    Ok(())
}

fn v1_first_page_unmaps_whole_mapping() -> Result<()> {
    let m = mapped(Iommu::Type1)?;
    assert_eq!(
        UnmapDma::of(0x10 * PAGE, PAGE).send(&m.container),
        Ok(4 * PAGE)
    );
    assert_eq!(
        UnmapDma::of(0x1f * PAGE, 2 * PAGE).send(&m.container),
        Ok(4 * PAGE)
    );
    assert_eq!(locked_pages(), 3);
    Ok(())
}

fn v1_first_half_unmaps_whole_mapping() -> Result<()> {
    let m = mapped(Iommu::Type1)?;
    assert_eq!(
        UnmapDma::of(0x20 * PAGE, 2 * PAGE).send(&m.container),
        Ok(4 * PAGE)
    );
    assert_eq!(
        UnmapDma::of(0x22 * PAGE, 2 * PAGE).send(&m.container),
        Ok(0)
    );
    Ok(())
}

fn vaddr_is_invalidated() -> Result<()> {
    for iommu in [Iommu::Type1, Iommu::Type1v2] {
        let m = mapped(iommu)?;
        assert_eq!(
            UnmapDma {
                flags: UnmapDma::VADDR,
                ..UnmapDma::of(0x10 * PAGE, 6 * PAGE)
            }
            .send(&m.container),
            Ok(6 * PAGE)
        );
        assert_eq!(locked_pages(), TOTAL / PAGE, "the device keeps the pages");
        let avail = m.container.info()?.dma_avail();
        assert_eq!(avail, Some(65535 - 4));
        // An ordinary unmap also removes mappings with an invalid vaddr.
        assert_eq!(UnmapDma::all().send(&m.container), Ok(TOTAL));
    }
    Ok(())
}

fn vaddr_invalidated_twice() -> Result<()> {
    let m = mapped(Iommu::Type1v2)?;
    assert_eq!(
        UnmapDma {
            flags: UnmapDma::VADDR,
            ..UnmapDma::of(0x14 * PAGE, 2 * PAGE)
        }
        .send(&m.container),
        Ok(2 * PAGE)
    );
    assert_eq!(
        UnmapDma {
            flags: UnmapDma::VADDR,
            ..UnmapDma::of(0x10 * PAGE, 6 * PAGE)
        }
        .send(&m.container),
        Err(Errno::EINVAL)
    );
    // The failed request has made the vaddrs that it invalidated valid again.
    assert_eq!(
        UnmapDma {
            flags: UnmapDma::VADDR,
            ..UnmapDma::of(0x10 * PAGE, 4 * PAGE)
        }
        .send(&m.container),
        Ok(4 * PAGE)
    );
    Ok(())
}

fn all_vaddrs_invalidated() -> Result<()> {
    let m = mapped(Iommu::Type1v2)?;
    assert_eq!(
        UnmapDma {
            flags: UnmapDma::VADDR | UnmapDma::ALL,
            ..UnmapDma::of(0, 0)
        }
        .send(&m.container),
        Ok(TOTAL)
    );
    assert_eq!(
        UnmapDma {
            flags: UnmapDma::VADDR | UnmapDma::ALL,
            ..UnmapDma::of(0, 0)
        }
        .send(&m.container),
        Err(Errno::EINVAL)
    );
    assert_eq!(locked_pages(), TOTAL / PAGE);
    Ok(())
}

fn v1_range_across_mappings() -> Result<()> {
    let m = mapped(Iommu::Type1)?;
    // A range from a hole across two mappings into a third one: all three are unmapped.
    assert_eq!(
        UnmapDma::of(0xf * PAGE, 0x22 * PAGE - 0xf * PAGE).send(&m.container),
        Ok(10 * PAGE)
    );
    assert_eq!(locked_pages(), 1);
    Ok(())
}

fn v2_whole_address_space() -> Result<()> {
    let m = mapped(Iommu::Type1v2)?;
    assert_eq!(UnmapDma::of(0, 1 << 63).send(&m.container), Ok(TOTAL));
    assert_eq!(UnmapDma::of(1 << 63, 1 << 63).send(&m.container), Ok(0));
    Ok(())
}

fn no_group_joins_while_vaddr_is_invalid() -> Result<()> {
    let m = mapped(Iommu::Type1v2)?;
    assert_eq!(
        UnmapDma {
            flags: UnmapDma::VADDR,
            ..UnmapDma::of(0x10 * PAGE, 6 * PAGE)
        }
        .send(&m.container),
        Ok(6 * PAGE)
    );
    let other = group(NVME)?;
    assert_eq!(other.set_container(&m.container).errno(), Errno::EBUSY);
    assert_eq!(
        other.status()?,
        1,
        "the group is viable and has no container"
    );
    assert_eq!(UnmapDma::all().send(&m.container), Ok(TOTAL));
    other.set_container(&m.container)?;
    Ok(())
}

fn vaddr_updated_by_another_process() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    let memory = Memory::anonymous(4 * PAGE_SIZE)?;
    container.map(0x10 * PAGE, &memory, MapFlags::ReadWrite)?;
    assert_eq!(
        UnmapDma {
            flags: UnmapDma::VADDR,
            ..UnmapDma::of(0x10 * PAGE, 4 * PAGE)
        }
        .send(&container),
        Ok(4 * PAGE)
    );
    let fd = container.as_fd().try_clone_to_owned()?;
    let take_over = |limit: &str| -> Result<(Helper, String)> {
        let (number, iova) = (fd.as_raw_fd().to_string(), (0x10 * PAGE).to_string());
        let words = ["take-over", &number, &iova, limit];
        let mut helper = Helper::spawn(&words, &[&fd])?;
        let answer = format!("{}, {} pages", helper.line()?, helper.line()?);
        Ok((helper, answer))
    };
    let (helper, answer) = take_over("3")?;
    assert_eq!((answer.as_str(), locked_pages()), ("ENOMEM, 0 pages", 4));
    helper.finish()?;
    // The process that now provides the memory is charged for it.
    let (helper, answer) = take_over("4")?;
    assert_eq!((answer.as_str(), locked_pages()), ("OK, 4 pages", 0));
    helper.finish()?;
    assert_eq!(container.unmap(0x10 * PAGE, 4 * PAGE)?, 4 * PAGE);
    Ok(())
}
