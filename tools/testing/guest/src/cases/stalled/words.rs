// SPDX-License-Identifier: GPL-2.0

//! Container requests, as bytes.

use vfio_client::{
    Bytes,
    Container,
    Errno,
    PAGE_SIZE,
    raw,
    request, //
};

pub const PAGE: u64 = PAGE_SIZE as u64;

/// A range of device addresses.
#[derive(Clone, Copy, Debug)]
pub struct Dma {
    pub iova: u64,
    pub pages: u64,
}

/// The range of the request that stops.
pub const THERE: Dma = Dma {
    iova: 0x10_0000,
    pages: 8,
};
/// The part of [`THERE`] that is mapped before a request that does not map it: neither its start
/// nor its end.
pub const PART: Dma = Dma {
    iova: THERE.iova + 2 * PAGE,
    pages: 4,
};
/// Across the start of [`THERE`].
pub const START_BORDER: Dma = Dma {
    iova: THERE.iova - 2 * PAGE,
    pages: 4,
};
/// Across the end of [`THERE`].
pub const END_BORDER: Dma = Dma {
    iova: THERE.iova + (THERE.pages - 2) * PAGE,
    pages: 4,
};
/// A mapping that the stopped request does not use.
pub const ASIDE: Dma = Dma {
    iova: 0x20_0000,
    pages: 4,
};
/// As [`ASIDE`]. Its vaddr is invalidated if a request updates it.
pub const WITHDRAWN: Dma = Dma {
    iova: 0x30_0000,
    pages: 4,
};
/// A range that is not mapped.
pub const FREE: Dma = Dma {
    iova: 0x40_0000,
    pages: 4,
};

/// Flags of `VFIO_IOMMU_MAP_DMA`: devices may read and write the memory.
pub const READ_WRITE: u32 = 1 | 2;
/// Flag of `VFIO_IOMMU_MAP_DMA` and `VFIO_IOMMU_UNMAP_DMA`: only the vaddr changes.
pub const VADDR: u32 = 4;
/// Flag of `VFIO_IOMMU_UNMAP_DMA`: return a dirty bitmap.
pub const GET_DIRTY_BITMAP: u32 = 1;
/// Flag of `VFIO_IOMMU_UNMAP_DMA`: unmap everything.
pub const ALL: u32 = 2;

/// Flags of `VFIO_IOMMU_DIRTY_PAGES`.
pub const START: u32 = 1;
pub const STOP: u32 = 2;
pub const GET_BITMAP: u32 = 4;

/// The size of the first part of a request that has two parts.
pub const UNMAP_HEADER: usize = 24;
pub const DIRTY_HEADER: usize = 8;

/// The size of a bitmap. No range here needs more.
const BITMAP: u64 = 64;

/// `struct vfio_iommu_type1_dma_map`
pub fn map_bytes(dma: Dma, vaddr: u64, flags: u32) -> Bytes {
    let Dma { iova, pages } = dma;
    let argsz = 32;
    Bytes::new()
        .u32(argsz)
        .u32(flags)
        .u64(vaddr)
        .u64(iova)
        .u64(pages * PAGE)
}

/// `struct vfio_iommu_type1_dma_unmap`
pub fn unmap_bytes(dma: Dma, flags: u32) -> Bytes {
    let Dma { iova, pages } = dma;
    let argsz = UNMAP_HEADER as u32;
    Bytes::new()
        .u32(argsz)
        .u32(flags)
        .u64(iova)
        .u64(pages * PAGE)
}

/// `struct vfio_iommu_type1_dma_unmap` with a `struct vfio_bitmap` at address `bits`
pub fn unmap_bitmap_bytes(dma: Dma, bits: u64) -> Bytes {
    let Dma { iova, pages } = dma;
    let argsz = UNMAP_HEADER as u32 + 24;
    Bytes::new()
        .u32(argsz)
        .u32(GET_DIRTY_BITMAP)
        .u64(iova)
        .u64(pages * PAGE)
        .u64(PAGE)
        .u64(BITMAP)
        .u64(bits)
}

/// `struct vfio_iommu_type1_dirty_bitmap` with a `struct vfio_iommu_type1_dirty_bitmap_get`
pub fn get_bitmap_bytes(dma: Dma, bits: u64) -> Bytes {
    let Dma { iova, pages } = dma;
    let argsz = DIRTY_HEADER as u32 + 40;
    Bytes::new()
        .u32(argsz)
        .u32(GET_BITMAP)
        .u64(iova)
        .u64(pages * PAGE)
        .u64(PAGE)
        .u64(BITMAP)
        .u64(bits)
}

/// `struct vfio_iommu_type1_info`, with room for capabilities
pub fn info_bytes() -> Bytes {
    let argsz = 1024;
    Bytes::new().u32(argsz).fill(0, argsz as usize - 4)
}

/// The result of a request: the number of pages unmapped or pinned, or else 0.
pub type Answer = Result<u64, Errno>;

fn send(container: &Container, nr: u32, mut bytes: Bytes) -> Result<Bytes, Errno> {
    raw::bytes(container, nr, &mut bytes)?;
    Ok(bytes)
}

/// Maps memory from `vaddr` on.
pub fn map(container: &Container, dma: Dma, vaddr: u64) -> Answer {
    let bytes = map_bytes(dma, vaddr, READ_WRITE);
    send(container, request::IOMMU_MAP_DMA, bytes).map(|_| 0)
}

/// Updates the vaddr of a mapping.
pub fn give_address(container: &Container, dma: Dma, vaddr: u64) -> Answer {
    let bytes = map_bytes(dma, vaddr, VADDR);
    send(container, request::IOMMU_MAP_DMA, bytes).map(|_| 0)
}

/// Unmaps a range, or invalidates vaddrs.
pub fn unmap(container: &Container, dma: Dma, flags: u32) -> Answer {
    let bytes = unmap_bytes(dma, flags);
    send(container, request::IOMMU_UNMAP_DMA, bytes).map(|answer| unmapped(&answer))
}

/// Unmaps a range and requests its dirty bitmap.
pub fn unmap_with_bitmap(container: &Container, dma: Dma, bits: u64) -> Answer {
    let bytes = unmap_bitmap_bytes(dma, bits);
    send(container, request::IOMMU_UNMAP_DMA, bytes).map(|answer| unmapped(&answer))
}

/// Returns how many pages an unmap has unmapped.
pub fn unmapped(answer: &Bytes) -> u64 {
    answer.get_u64(16) / PAGE
}

/// Starts or stops dirty page tracking.
pub fn dirty(container: &Container, flags: u32) -> Answer {
    let bytes = Bytes::new().u32(DIRTY_HEADER as u32).u32(flags);
    send(container, request::IOMMU_DIRTY_PAGES, bytes).map(|_| 0)
}

/// Requests the dirty bitmap of a range.
pub fn get_bitmap(container: &Container, dma: Dma, bits: u64) -> Answer {
    let bytes = get_bitmap_bytes(dma, bits);
    send(container, request::IOMMU_DIRTY_PAGES, bytes).map(|_| 0)
}
