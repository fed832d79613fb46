// SPDX-License-Identifier: GPL-2.0

//! Validation of ioctl arguments: the checks that do not depend on a container.
//!
//! The order of the checks is part of the interface, because it decides which error user space
//! sees.

use kernel::prelude::*;

use kernel_ext::{
    bindings,
    iommu::Prot,
    iova::Range,
    uapi, //
};

use crate::error::{
    RequestError,
    RequestResult, //
};

/// An address or the size is not a multiple of the smallest page size.
const UNALIGNED: RequestError = RequestError::new(
    EINVAL,
    c"address or size is not a multiple of the IOMMU page size",
);

/// The memory is beyond the addresses that a process has.
const BEYOND_MEMORY: RequestError =
    RequestError::new(EOVERFLOW, c"the memory exceeds the last address");

/// Returns the range of `size` bytes at `start`.
///
/// # Errors
///
/// `EINVAL` if `size` is 0, `EOVERFLOW` if the range exceeds the last address.
fn range(start: u64, size: u64) -> RequestResult<Range> {
    let reason = if size == 0 {
        c"size is 0"
    } else {
        c"range exceeds the last address"
    };
    Range::of_size(start, size).map_err(|e| RequestError::new(e, reason))
}

/// A request to map a range, or to set a new vaddr for a mapping.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MapRequest {
    /// The iova range.
    pub(crate) range: Range,
    /// The length in bytes.
    pub(crate) size: u64,
    /// The user virtual address.
    pub(crate) vaddr: u64,
    /// The access that devices get; `None` to set `vaddr` for an existing mapping.
    pub(crate) prot: Option<Prot>,
}

impl MapRequest {
    /// The known flags.
    pub(crate) const FLAGS: u32 = bindings::VFIO_DMA_MAP_FLAG_READ
        | bindings::VFIO_DMA_MAP_FLAG_WRITE
        | bindings::VFIO_DMA_MAP_FLAG_VADDR;

    /// Checks the fields of `struct vfio_iommu_type1_dma_map` except `argsz`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for unknown or contradictory flags or if `size` is 0; `EOVERFLOW` if one of the
    /// ranges exceeds the last address, or the memory that of a process.
    pub(crate) fn new(flags: u32, vaddr: u64, iova: u64, size: u64) -> RequestResult<Self> {
        if flags & !Self::FLAGS != 0 {
            return Err(RequestError::new(EINVAL, c"unknown flags"));
        }
        // On 32 bits, they may not fit.
        if usize::try_from(vaddr).is_err() || usize::try_from(size).is_err() {
            return Err(BEYOND_MEMORY);
        }
        let addresses = range(iova, size)?;
        if usize::try_from(range(vaddr, size)?.last).is_err() {
            return Err(BEYOND_MEMORY);
        }
        let prot = uapi::prot(flags);
        let none = prot == Prot::default();
        let prot = match (none, flags & bindings::VFIO_DMA_MAP_FLAG_VADDR != 0) {
            (false, false) => Some(prot),
            (true, true) => None,
            (true, false) => {
                let reason = c"neither VFIO_DMA_MAP_FLAG_READ nor VFIO_DMA_MAP_FLAG_WRITE is set";
                return Err(RequestError::new(EINVAL, reason));
            }
            (false, true) => {
                let reason = c"FLAG_VADDR cannot be combined with these flags";
                return Err(RequestError::new(EINVAL, reason));
            }
        };
        Ok(Self {
            range: addresses,
            size,
            vaddr,
            prot,
        })
    }

    /// Checks that both addresses and the size are multiples of `page_size`, a power of two.
    ///
    /// # Errors
    ///
    /// `EINVAL`.
    pub(crate) fn check_aligned(&self, page_size: u64) -> RequestResult {
        if (self.size | self.range.start | self.vaddr) & (page_size - 1) != 0 {
            return Err(UNALIGNED);
        }
        Ok(())
    }
}

/// A request to unmap.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UnmapRequest {
    /// The first iova; 0 if `all`.
    pub(crate) iova: u64,
    /// The length in bytes; 0 if `all`.
    pub(crate) size: u64,
    /// Whether to unmap everything.
    pub(crate) all: bool,
    /// Whether to invalidate the vaddrs instead of unmapping.
    pub(crate) vaddr: bool,
    /// Whether to report the dirty pages.
    pub(crate) dirty: bool,
}

impl UnmapRequest {
    /// The known flags.
    pub(crate) const FLAGS: u32 = bindings::VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP
        | bindings::VFIO_DMA_UNMAP_FLAG_ALL
        | bindings::VFIO_DMA_UNMAP_FLAG_VADDR;

    /// Checks the flags of `struct vfio_iommu_type1_dma_unmap`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for unknown or contradictory flags.
    pub(crate) fn new(flags: u32, iova: u64, size: u64) -> RequestResult<Self> {
        let has = |flag| flags & flag != 0;
        let request = Self {
            iova,
            size,
            all: has(bindings::VFIO_DMA_UNMAP_FLAG_ALL),
            vaddr: has(bindings::VFIO_DMA_UNMAP_FLAG_VADDR),
            dirty: has(bindings::VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP),
        };
        if flags & !Self::FLAGS != 0 {
            return Err(RequestError::new(EINVAL, c"unknown flags"));
        }
        if request.dirty && (request.all || request.vaddr) {
            return Err(RequestError::new(
                EINVAL,
                c"a dirty bitmap cannot be combined with these flags",
            ));
        }
        Ok(request)
    }

    /// Returns the same request for the mapping at `dma` alone.
    pub(crate) fn of(&self, dma: Range) -> Self {
        Self {
            iova: dma.start,
            // A size of 2^64 does not fit, but no mapping is that large.
            size: (dma.last - dma.start).saturating_add(1),
            all: false,
            ..*self
        }
    }

    /// Returns the requested iova range, whether or not it is valid.
    pub(crate) fn span(&self) -> Range {
        if self.all {
            return Range::ALL;
        }
        Range {
            start: self.iova,
            last: self.iova.saturating_add(self.size.saturating_sub(1)),
        }
    }

    /// Returns the iova range to unmap, given the smallest page size.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the address or the size is not a multiple of `page_size`, if the size is 0, or
    /// if `all` is combined with a range; `EOVERFLOW` if the range exceeds the last address.
    pub(crate) fn range(&self, page_size: u64) -> RequestResult<Range> {
        let mask = page_size - 1;
        if self.iova & mask != 0 {
            return Err(UNALIGNED);
        }
        if self.all {
            if self.iova != 0 || self.size != 0 {
                return Err(RequestError::new(
                    EINVAL,
                    c"FLAG_ALL requires iova and size 0",
                ));
            }
            return Ok(Range::ALL);
        }
        if self.size & mask != 0 {
            return Err(UNALIGNED);
        }
        range(self.iova, self.size)
    }
}

#[kunit_tests(vfio_type1_request)]
mod tests {
    use super::*;

    const R: u32 = bindings::VFIO_DMA_MAP_FLAG_READ;
    const W: u32 = bindings::VFIO_DMA_MAP_FLAG_WRITE;
    const V: u32 = bindings::VFIO_DMA_MAP_FLAG_VADDR;
    const DIRTY: u32 = bindings::VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP;
    const ALL: u32 = bindings::VFIO_DMA_UNMAP_FLAG_ALL;
    const VADDR: u32 = bindings::VFIO_DMA_UNMAP_FLAG_VADDR;

    #[test]
    fn map_errors_in_order() {
        for (flags, vaddr, iova, size, expected) in [
            (R | W, 0x1000, 0x1000, 0x1000, None),
            (V, 0x1000, 0x1000, 0x1000, None),
            (8, 0, u64::MAX, 2, Some(EINVAL)),
            (R, usize::MAX as u64, u64::MAX, 0, Some(EINVAL)),
            (0, 0, u64::MAX, 2, Some(EOVERFLOW)),
            (0, u64::MAX, 0, 2, Some(EOVERFLOW)),
            (R, usize::MAX as u64 - 0xfff, 0, 0x1000, None),
            (0, usize::MAX as u64 - 0xfff, 0, 0x1001, Some(EOVERFLOW)),
            (R, 0, u64::MAX - 0xfff, 0x1000, None),
            (0, 0, 0, 0x1000, Some(EINVAL)),
            (R | V, 0, 0, 0x1000, Some(EINVAL)),
        ] {
            let request = MapRequest::new(flags, vaddr, iova, size);
            assert_eq!(request.err().map(Error::from), expected);
        }
    }

    #[test]
    fn map_alignment() -> Result {
        MapRequest::new(R, 0x3000, 0x1000, 0x2000)?.check_aligned(0x1000)?;
        for (vaddr, iova, size) in [
            (0x3001, 0x1000, 0x1000),
            (0x3000, 0x1800, 0x1000),
            (0x3000, 0x1000, 0x800),
        ] {
            let request = MapRequest::new(R, vaddr, iova, size)?;
            let aligned = request.check_aligned(0x1000).map_err(Error::from);
            assert_eq!(aligned, Err(EINVAL));
        }
        Ok(())
    }

    #[test]
    fn unmap_flags() {
        for (flags, good) in [
            (0, true),
            (ALL | VADDR, true),
            (DIRTY, true),
            (DIRTY | ALL, false),
            (DIRTY | VADDR, false),
            (8, false),
        ] {
            assert_eq!(UnmapRequest::new(flags, 0, 0).is_ok(), good);
        }
    }

    #[test]
    fn unmap_ranges() -> Result {
        let page = 0x1000;
        for (flags, iova, size, expected) in [
            (0, 0x1000, 0x1000, Ok(Range::of_size(0x1000, 0x1000)?)),
            (ALL, 0, 0, Ok(Range::ALL)),
            (ALL, 0x1000, 0, Err(EINVAL)),
            (ALL, 0, 0x1000, Err(EINVAL)),
            (0, 0x800, u64::MAX, Err(EINVAL)),
            (0, 0x1000, 0, Err(EINVAL)),
            (0, 0x1000, 0x1800, Err(EINVAL)),
            (0, 0x2000, u64::MAX - 0xfff, Err(EOVERFLOW)),
        ] {
            let request = UnmapRequest::new(flags, iova, size)?;
            assert_eq!(request.range(page).map_err(Error::from), expected);
        }
        Ok(())
    }
}
