// SPDX-License-Identifier: GPL-2.0

//! The unsafe corner of this module: structures of the ioctls as bytes, the promise that mappings
//! don't overlap, the list of containers, and the tracepoint.
//!
//! Mappings of a container don't overlap: pages for a range are made only while it is locked and nothing
//! is mapped there, and have gone to the tree, or are dropped, before it is free again.

#![expect(unsafe_code)]

pub(crate) mod globals;
pub(crate) mod trace;

use kernel::{
    prelude::*,
    sync::Arc,
    transmute::{
        AsBytes,
        FromBytes, //
    },
};

use kernel_ext::{
    bindings,
    iommu::{
        Domains,
        Mapping,
        Prot, //
    }, //
};

use iommu_group::ranges::Range;

use crate::{
    container::Container,
    pages::DmaPages,
    space::{
        RangeGuard,
        Vaddr,
        WholeGuard, //
    }, //
};

/// Makes types that wrap structures of the ioctls, which consist of integers and user addresses.
macro_rules! user_structs {
    ($($(#[$meta:meta])* $name:ident = $c:ident, $size:literal;)*) => {$(
        $(#[$meta])*
        #[repr(transparent)]
        #[derive(Default)]
        pub(crate) struct $name(pub(crate) bindings::$c);

        const _: () = assert!(core::mem::size_of::<$name>() == $size);

        // SAFETY: The structure consists of integers and user addresses, and has no padding: its size is the sum of
        // theirs, by the assertion above.
        unsafe impl FromBytes for $name {}

        // SAFETY: As above.
        unsafe impl AsBytes for $name {}
    )*};
}

user_structs! {
    /// The answer to `VFIO_IOMMU_GET_INFO`, without the capabilities that follow.
    Info = vfio_iommu_type1_info, 24;
    /// The argument of `VFIO_IOMMU_MAP_DMA`.
    MapDma = vfio_iommu_type1_dma_map, 32;
    /// A bitmap of dirty pages in the program's memory.
    Bitmap = vfio_bitmap, 24;
    /// The range in the argument of `VFIO_IOMMU_DIRTY_PAGES`.
    DirtyGet = vfio_iommu_type1_dirty_bitmap_get, 40;
}

/// The argument of `VFIO_IOMMU_UNMAP_DMA`, without the bitmap that may follow.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct UnmapDma {
    /// The size of the argument.
    pub(crate) argsz: u32,
    /// `VFIO_DMA_UNMAP_FLAG_*`.
    pub(crate) flags: u32,
    /// The first address.
    pub(crate) iova: u64,
    /// The length in bytes; in the answer, what was unmapped.
    pub(crate) size: u64,
}

const _: () = {
    use bindings::vfio_iommu_type1_dma_unmap as C;
    assert!(core::mem::size_of::<UnmapDma>() == core::mem::size_of::<C>());
    assert!(core::mem::offset_of!(UnmapDma, flags) == core::mem::offset_of!(C, flags));
    assert!(core::mem::offset_of!(UnmapDma, iova) == core::mem::offset_of!(C, iova));
    assert!(core::mem::offset_of!(UnmapDma, size) == core::mem::offset_of!(C, size));
};

// SAFETY: The structure consists of integers, without padding.
unsafe impl FromBytes for UnmapDma {}

// SAFETY: As above.
unsafe impl AsBytes for UnmapDma {}

/// Starts a mapping in `range`, which is locked.
///
/// # Errors
///
/// `EINVAL` if it isn't.
pub(crate) fn new_mapping(
    guard: &RangeGuard<'_, Container>,
    range: Range,
    domains: Arc<Domains>,
    prot: Prot,
) -> Result<Mapping> {
    if !guard.range().contains(range) {
        return Err(EINVAL);
    }
    // SAFETY: Mappings of a container don't overlap, as said above; `populate` adds no more than the
    // range's size. The domains are those of the container, where nobody else maps.
    Ok(unsafe { Mapping::new(domains, range.start, prot) })
}

/// Maps everything in the domains `new`, and calls `then` for each mapping.
///
/// # Errors
///
/// Those of [`Mapping::extend`] and of `then`.
pub(crate) fn extend_all(
    whole: &mut WholeGuard<'_, Container>,
    new: &Arc<Domains>,
    mut then: impl FnMut(Range, Option<Vaddr>, &mut DmaPages) -> Result,
) -> Result {
    whole.try_update(Range::ALL, |range, vaddr, pages| {
        // SAFETY: Mappings of a container don't overlap, as said above; the new domain is the container's,
        // whose address space is locked altogether, so nobody else maps there.
        unsafe { pages.mapping.extend(new) }?;
        then(range, vaddr, pages)
    })
}
