// SPDX-License-Identifier: GPL-2.0

//! The ranges that requests use, and the requests.

use support::{
    PAGE,
    requests::{
        Bitmap,
        DirtyPages,
        MapDma,
        UnmapDma, //
    },
};
use vfio_client::{
    Bytes,
    Container,
    Errno, //
};

/// A range of device addresses.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    pub iova: u64,
    pub pages: u64,
}

/// The range of the request that stops.
pub const THERE: Range = Range {
    iova: 0x10_0000,
    pages: 8,
};
/// The part of [`THERE`] that is mapped before a request that does not map it: neither its start
/// nor its end.
pub const PART: Range = Range {
    iova: THERE.iova + 2 * PAGE,
    pages: 4,
};
/// Across the start of [`THERE`].
pub const START_BORDER: Range = Range {
    iova: THERE.iova - 2 * PAGE,
    pages: 4,
};
/// Across the end of [`THERE`].
pub const END_BORDER: Range = Range {
    iova: THERE.iova + (THERE.pages - 2) * PAGE,
    pages: 4,
};
/// A mapping that the stopped request does not use.
pub const ASIDE: Range = Range {
    iova: 0x20_0000,
    pages: 4,
};
/// As [`ASIDE`]. Its vaddr is invalidated if a request updates it.
pub const INVALIDATED: Range = Range {
    iova: 0x30_0000,
    pages: 4,
};
/// A range that is not mapped.
pub const FREE: Range = Range {
    iova: 0x40_0000,
    pages: 4,
};

/// The size of a bitmap, in bytes. No range here needs more.
const BITMAP: u64 = 64;

impl Range {
    fn size(self) -> u64 {
        self.pages * PAGE
    }

    /// Returns a request to map memory starting at `vaddr`.
    pub fn map(self, vaddr: u64) -> MapDma {
        MapDma {
            vaddr,
            iova: self.iova,
            size: self.size(),
            ..MapDma::default()
        }
    }

    /// Returns a request to update the vaddr of a mapping.
    pub fn update_vaddr(self, vaddr: u64) -> MapDma {
        MapDma {
            flags: MapDma::VADDR,
            ..self.map(vaddr)
        }
    }

    /// Returns a request to unmap the range.
    pub fn unmap(self) -> UnmapDma {
        UnmapDma::of(self.iova, self.size())
    }

    /// Returns a request to invalidate the vaddrs of the range.
    pub fn invalidate_vaddr(self) -> UnmapDma {
        UnmapDma {
            flags: UnmapDma::VADDR,
            ..self.unmap()
        }
    }

    /// Returns a request to unmap the range and write its dirty bitmap to address `bits`.
    pub fn unmap_with_bitmap(self, bits: u64) -> UnmapDma {
        UnmapDma::with_bitmap(self.iova, self.size(), bitmap(bits))
    }

    /// Returns a request to write the dirty bitmap of the range to address `bits`.
    pub fn get_bitmap(self, bits: u64) -> DirtyPages {
        DirtyPages::get(self.iova, self.size(), bitmap(bits))
    }
}

fn bitmap(data: u64) -> Bitmap {
    Bitmap {
        pgsize: PAGE,
        size: BITMAP,
        data,
    }
}

/// `struct vfio_iommu_type1_info`, with room for capabilities
pub fn info_bytes() -> Bytes {
    let argsz = 1024;
    Bytes::new().u32(argsz).fill(0, argsz as usize - 4)
}

/// The result of a request: the number of pages unmapped or pinned, or else 0.
pub type Answer = Result<u64, Errno>;

/// A request to a container whose result is an [`Answer`].
pub trait Ask {
    /// Sends the request.
    fn ask(&self, container: &Container) -> Answer;
}

impl Ask for MapDma {
    fn ask(&self, container: &Container) -> Answer {
        self.send(container).map(|_| 0)
    }
}

impl Ask for UnmapDma {
    fn ask(&self, container: &Container) -> Answer {
        self.send(container).map(|size| size / PAGE)
    }
}

impl Ask for DirtyPages {
    fn ask(&self, container: &Container) -> Answer {
        self.send(container).map(|_| 0)
    }
}

/// Starts dirty page tracking.
pub fn start_tracking(container: &Container) -> Answer {
    DirtyPages::track(DirtyPages::START).ask(container)
}

/// Stops dirty page tracking.
pub fn stop_tracking(container: &Container) -> Answer {
    DirtyPages::track(DirtyPages::STOP).ask(container)
}
