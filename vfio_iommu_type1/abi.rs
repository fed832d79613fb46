// SPDX-License-Identifier: GPL-2.0

//! The unsafe code of this module: the structures of the ioctls as bytes, the guarantee that
//! mappings do not overlap, the list of containers, and the tracepoint.
//!
//! The mappings of a container do not overlap. Pages for a range are created only while the range
//! is locked and nothing is mapped in it. Before the range is unlocked, they are either inserted
//! into the tree or dropped. The types do not enforce all of this: the callers of [`new_mapping`]
//! and [`extend_all`] keep the contracts that are written there.

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

/// Defines types that wrap structures of the ioctls. The structures consist of integers and user
/// addresses.
macro_rules! user_structs {
    ($($(#[$meta:meta])* $name:ident = $c:ident, $size:literal;)*) => {$(
        $(#[$meta])*
        #[repr(transparent)]
        #[derive(Default)]
        pub(crate) struct $name(pub(crate) bindings::$c);

        const _: () = assert!(core::mem::size_of::<$name>() == $size);

        // SAFETY: The structure consists of integers and user addresses, and has no padding: its
        // size is the sum of theirs, by the assertion above.
        unsafe impl FromBytes for $name {}

        // SAFETY: As above.
        unsafe impl AsBytes for $name {}
    )*};
}

user_structs! {
    /// The result of `VFIO_IOMMU_GET_INFO`, without the capabilities that follow it.
    Info = vfio_iommu_type1_info, 24;
    /// The argument of `VFIO_IOMMU_MAP_DMA`.
    MapDma = vfio_iommu_type1_dma_map, 32;
    /// A dirty bitmap in user memory.
    Bitmap = vfio_bitmap, 24;
    /// The range in the argument of `VFIO_IOMMU_DIRTY_PAGES`.
    DirtyGet = vfio_iommu_type1_dirty_bitmap_get, 40;
}

/// The argument of `VFIO_IOMMU_UNMAP_DMA`, without the bitmap that may follow it.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct UnmapDma {
    /// The size of the argument.
    pub(crate) argsz: u32,
    /// `VFIO_DMA_UNMAP_FLAG_*`.
    pub(crate) flags: u32,
    /// The first IOVA.
    pub(crate) iova: u64,
    /// The length in bytes; on return, the number of bytes that were unmapped.
    pub(crate) size: u64,
}

const _: () = {
    use bindings::vfio_iommu_type1_dma_unmap as C;
    assert!(core::mem::size_of::<UnmapDma>() == core::mem::size_of::<C>());
    assert!(core::mem::offset_of!(UnmapDma, flags) == core::mem::offset_of!(C, flags));
    assert!(core::mem::offset_of!(UnmapDma, iova) == core::mem::offset_of!(C, iova));
    assert!(core::mem::offset_of!(UnmapDma, size) == core::mem::offset_of!(C, size));
};

// SAFETY: The structure consists of integers and has no padding.
unsafe impl FromBytes for UnmapDma {}

// SAFETY: As above.
unsafe impl AsBytes for UnmapDma {}

/// Creates an empty mapping at the start of `range`, which the caller has locked.
///
/// The only caller is `map_in`. It keeps this contract:
///
/// - `domains` is the set in the layout of the guard's container, read after the range was locked.
/// - Nothing is mapped in `range`, and this is called once for it while `guard` exists.
/// - At most the size of `range` is appended to the mapping.
/// - The mapping is inserted into the tree, or dropped, before `guard` is dropped.
///
/// # Errors
///
/// `EINVAL` if the range is not locked.
pub(crate) fn new_mapping(
    guard: &RangeGuard<'_, Container>,
    range: Range,
    domains: Arc<Domains>,
    prot: Prot,
) -> Result<Mapping> {
    if !guard.range().contains(range) {
        return Err(EINVAL);
    }
    // SAFETY: The mappings of a container do not overlap, as described at the top of this file. By
    // the contract of this function the mapping is confined to the locked range while it is not in
    // the tree, and the domains are those of the container, in which nobody else maps.
    Ok(unsafe { Mapping::new(domains, range.start, prot) })
}

/// Maps all existing mappings in the domains `new`, and calls `then` for each mapping.
///
/// The only caller is `replay`. It keeps this contract:
///
/// - `new` consists of the domains of the container of `whole`, and one that was allocated for the
///   group that is being attached to this container.
/// - `then` appends at most the size of the range that it is called with, and only to a mapping
///   that is empty.
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
        // SAFETY: The mappings of a container do not overlap, as described at the top of this
        // file. By the contract of this function only this container maps in the new domain, and
        // its whole address space is locked.
        unsafe { pages.mapping.extend(new) }?;
        then(range, vaddr, pages)
    })
}
