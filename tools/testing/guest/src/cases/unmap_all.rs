// SPDX-License-Identifier: GPL-2.0

//! VFIO_DMA_UNMAP_FLAG_ALL in a container whose only device has a driver that pins pages.

use super::concurrent::unmap_all_while_others_unmap;
use crate::{
    harness::cases,
    pin::{
        Pinning,
        READ,
        WRITE, //
    },
};
use anyhow::{
    Context,
    Result, //
};
use support::{
    PAGE,
    machine::locked_pages,
    requests::MapDma, //
};
use vfio_client::{
    Container,
    MapFlags,
    Memory,
    PAGE_SIZE, //
};

cases! {
    #[rows("T-U9")] unmap_all_of_whole_address_space,
    #[rows("T-U9")] close_unmaps_whole_address_space,
    #[rows("T-U9")] unmap_all_while_other_threads_unmap,
    #[rows("T-U14")] unmap_all_with_pins_in_many_mappings,
}

const HALF: u64 = 1 << 63;

/// Maps half of the address space. The process has no memory there, which matters only when pages
/// are pinned.
fn map_half(container: &Container, iova: u64) -> Result<()> {
    let map = MapDma {
        vaddr: HALF,
        iova,
        size: HALF,
        ..MapDma::default()
    };
    map.send(container).context("MAP_DMA")?;
    Ok(())
}

fn all_mapped() -> Result<Pinning> {
    let pinning = Pinning::new()?;
    for iova in [0, HALF] {
        map_half(&pinning.container, iova)?;
    }
    Ok(pinning)
}

/// The sum of all sizes does not fit into the field of the structure.
fn unmap_all_of_whole_address_space() -> Result<()> {
    let pinning = all_mapped()?;
    let container = &pinning.container;
    assert_eq!(container.unmap_all()?, 0, "2^64, without its last bit");
    assert_eq!(container.unmap_all()?, 0, "nothing is left");
    assert_eq!(container.info()?.dma_avail(), Some(65535));
    map_half(container, HALF)?;
    assert_eq!(container.unmap_all()?, HALF);
    Ok(())
}

fn close_unmaps_whole_address_space() -> Result<()> {
    drop(all_mapped()?);
    let pinning = all_mapped()?;
    pinning.group.status()?;
    Ok(())
}

fn unmap_all_while_other_threads_unmap() -> Result<()> {
    let pinning = Pinning::new()?;
    unmap_all_while_others_unmap(&pinning.container)
}

/// The driver is notified of each mapping and unpins its pages at once.
fn unmap_all_with_pins_in_many_mappings() -> Result<()> {
    let pinning = Pinning::new()?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    for count in [1, 10, 11, 40] {
        for iova in (0..count).map(|number| 2 * number * PAGE) {
            pinning.container.map(iova, &memory, MapFlags::ReadWrite)?;
            assert_eq!(pinning.pinner.pin(iova, 1, READ | WRITE)?.0, 1);
        }
        let unmapped = pinning.container.unmap_all();
        assert_eq!(
            unmapped.with_context(|| format!("{count} mappings"))?,
            count * PAGE
        );
        assert_eq!((pinning.pinner.pinned()?, locked_pages()), (0, 0));
    }
    Ok(())
}
