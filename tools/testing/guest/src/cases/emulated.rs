// SPDX-License-Identifier: GPL-2.0

//! Containers with emulated groups, whose devices have no IOMMU.

use crate::{
    env::{
        EDU, //
        group,
    },
    harness::{
        Failure, //
        cases,
    },
    mdev::{
        Mdev,
        UUIDS, //
        open_mtty,
    }, //
};
use anyhow::Result;

use support::{
    PAGE,
    machine::locked_pages,
    requests::{
        DirtyPages,
        MapDma,
        UnmapDma, //
    },
};
use vfio_client::{
    Container,
    Errno,
    Iommu,
    MapFlags,
    Memory,
    PAGE_SIZE,
    raw,
    request,
    uapi::VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, //
};

cases! {
    #[rows("C4")] check_extension,
    #[rows("C8")] set_iommu,
    #[rows("T-I3")] no_iova_ranges_without_iommu,
    #[rows("T-I4")] page_sizes_without_and_with_iommu,
    #[rows("T-M24")] map_pins_nothing,
    #[rows("T-M24")] map_at_any_iova,
    #[rows("T-M24")] type1_v1_unmap,
    #[rows("T-M21")] mapping_too_large_for_dirty_tracking,
    #[rows("T-U3")] vaddr_cannot_be_invalidated,
    several_groups_share_mappings,
    close_in_every_order,
}

fn check_extension() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    let extensions = |numbers: &[u32]| {
        numbers
            .iter()
            .map(|number| open.container.check_extension(*number))
            .collect::<Result<Vec<_>, _>>()
    };
    // TYPE1, TYPE1v2, coherent DMA (no device is non-coherent), UNMAP_ALL; no UPDATE_VADDR.
    assert_eq!(extensions(&[1, 3, 4, 9])?, [1, 1, 1, 1]);
    assert_eq!(extensions(&[10])?, [0]);
    drop(open.device);
    drop(open.group);
    assert_eq!(open.container.check_extension(10)?, 0, "no IOMMU driver");
    Ok(())
}

fn set_iommu() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let group = mdev.group()?;
    for (iommu, expected) in [
        (0u64, Err(Errno::ENODEV)),
        (1, Ok(0)),
        (2, Err(Errno::ENODEV)),
        (3, Ok(0)),
        (4, Err(Errno::ENODEV)),
        (8, Err(Errno::ENODEV)),
        (9, Err(Errno::EINVAL)),
    ] {
        let container = Container::open()?;
        group.set_container(&container)?;
        assert_eq!(
            raw::value(&container, request::SET_IOMMU, iommu),
            expected,
            "{iommu}"
        );
        group.unset_container()?;
    }
    Ok(())
}

fn no_iova_ranges_without_iommu() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    let info = open.container.info()?;
    assert!(info.cap(VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE).is_none());
    assert_eq!(info.dma_avail(), Some(65535));
    assert_eq!(info.flags, 3);
    Ok(())
}

fn page_sizes_without_and_with_iommu() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    let alone = open.container.info()?.page_sizes;
    assert_eq!(alone, !(PAGE - 1), "all sizes from a page on");
    let other = group(EDU)?;
    other.set_container(&open.container)?;
    let mixed = open.container.info()?.page_sizes;
    assert_eq!(mixed & PAGE, PAGE);
    assert_ne!(mixed, alone);
    other.unset_container()?;
    assert_eq!(open.container.info()?.page_sizes, alone);
    Ok(())
}

fn map_pins_nothing() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    let memory = Memory::anonymous(64 * PAGE_SIZE)?;
    open.container
        .map(0x10_0000, &memory, MapFlags::ReadWrite)?;
    assert_eq!(locked_pages(), 0);
    assert_eq!(open.container.info()?.dma_avail(), Some(65534));
    // Inaccessible memory can be mapped, because it is not pinned.
    let mut forbidden = Memory::anonymous(PAGE_SIZE)?;
    forbidden.protect(false, false)?;
    open.container
        .map(0x80_0000, &forbidden, MapFlags::ReadWrite)?;
    let again = open
        .container
        .map(0x10_0000 + PAGE, &forbidden, MapFlags::Read);
    assert_eq!(again.errno(), Errno::EEXIST);
    assert_eq!(open.container.unmap(0x10_0000, 64 * PAGE)?, 64 * PAGE);
    assert_eq!(open.container.unmap_all()?, PAGE);
    Ok(())
}

fn map_at_any_iova() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    // The interrupt window, an address beyond all address widths, and the last page.
    for iova in [0xfee0_0000, 1 << 60, u64::MAX - (PAGE - 1)] {
        open.container.map(iova, &memory, MapFlags::ReadWrite)?;
    }
    assert_eq!(open.container.unmap(1 << 60, PAGE)?, PAGE);
    assert_eq!(open.container.unmap_all()?, 2 * PAGE);
    Ok(())
}

fn type1_v1_unmap() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let group = mdev.group()?;
    let container = Container::open()?;
    group.set_container(&container)?;
    container.set_iommu(Iommu::Type1)?;
    let memory = Memory::anonymous(4 * PAGE_SIZE)?;
    container.map(0, &memory, MapFlags::ReadWrite)?;
    assert_eq!(container.unmap(PAGE, PAGE)?, 0);
    assert_eq!(container.unmap(0, PAGE)?, 4 * PAGE);
    Ok(())
}

fn vaddr_cannot_be_invalidated() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    open.container.map(0, &memory, MapFlags::ReadWrite)?;
    let invalidate = UnmapDma {
        flags: UnmapDma::VADDR,
        ..UnmapDma::of(0, PAGE)
    };
    assert_eq!(invalidate.send(&open.container), Err(Errno::EBUSY));
    assert_eq!(open.container.unmap_all()?, PAGE);
    Ok(())
}

fn several_groups_share_mappings() -> Result<()> {
    let (_first, open) = open_mtty()?;
    let second = Mdev::new("mdpy-vga", UUIDS[1])?;
    let third = Mdev::new("mtty-2", UUIDS[2])?;
    let groups = [second.group()?, third.group()?];
    let memory = Memory::anonymous(PAGE_SIZE)?;
    open.container.map(0, &memory, MapFlags::ReadWrite)?;
    for group in &groups {
        group.set_container(&open.container)?;
        assert_eq!(group.set_container(&open.container).errno(), Errno::EINVAL);
    }
    let device = groups[0].device(UUIDS[1])?;
    assert_eq!(groups[0].unset_container().errno(), Errno::EBUSY);
    drop(device);
    for group in &groups {
        group.unset_container()?;
    }
    assert_eq!(
        open.container.unmap_all()?,
        PAGE,
        "the first group keeps the mapping"
    );
    Ok(())
}

fn close_in_every_order() -> Result<()> {
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let (mdev, open) = open_mtty()?;
        let mut device = Some(open.device);
        let mut group = Some(open.group);
        let mut container = Some(open.container);
        for step in order {
            match step {
                0 => drop(device.take()),
                1 => drop(group.take()),
                _ => drop(container.take()),
            }
        }
        drop(mdev.open()?);
    }
    Ok(())
}

fn mapping_too_large_for_dirty_tracking() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    let container = &open.container;
    let start = DirtyPages::track(DirtyPages::START);
    const MOST_PAGES: u64 = (1 << 31) - 1;
    // Nothing is pinned, so the memory need not exist.
    let too_large = MapDma {
        vaddr: 1 << 63,
        size: (MOST_PAGES + 1) * PAGE,
        ..MapDma::default()
    };
    assert_eq!(too_large.send(container), Ok(0));
    assert_eq!(start.send(container), Err(Errno::EINVAL));
    assert_eq!(container.unmap_all()?, too_large.size);
    assert_eq!(start.send(container), Ok(0));
    assert_eq!(too_large.send(container), Err(Errno::EINVAL));
    assert_eq!(open.container.info()?.dma_avail(), Some(65535));
    Ok(())
}
