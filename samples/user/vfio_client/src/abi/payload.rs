// SPDX-License-Identifier: GPL-2.0

//! The bytes of C structures.

use vfio_bindings::bindings::vfio::{
    vfio_device_info,
    vfio_group_status,
    vfio_iommu_type1_dma_map,
    vfio_iommu_type1_dma_unmap,
    vfio_iommu_type1_info,
    vfio_irq_info,
    vfio_irq_set,
    vfio_region_info, //
};

/// A C structure without padding for which every bit pattern is valid.
///
/// # Safety
///
/// Implementers have no padding bytes, no references and no invalid bit patterns.
pub(crate) unsafe trait Payload: Sized {}

macro_rules! payload {
    ($($name:ident = $size:expr),* $(,)?) => {$(
        // SAFETY: The fields are integers; their sizes add up to the size of the structure (checked
        // below), hence there is no padding.
        unsafe impl Payload for $name {}
        const _: () = assert!(size_of::<$name>() == $size);
    )*};
}

payload! {
    vfio_group_status = 2 * 4,
    vfio_device_info = 6 * 4,
    vfio_region_info = 4 * 4 + 2 * 8,
    vfio_irq_info = 4 * 4,
    vfio_irq_set = 5 * 4,
    vfio_iommu_type1_info = 2 * 4 + 8 + 2 * 4,
    vfio_iommu_type1_dma_map = 2 * 4 + 3 * 8,
    vfio_iommu_type1_dma_unmap = 2 * 4 + 2 * 8,
}

/// Returns the bytes of a structure.
pub(crate) fn bytes_of<T: Payload>(value: &T) -> &[u8] {
    // SAFETY: `value` is valid for its size, and by the trait's contract has no padding.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// Reads a structure from the start of `bytes`.
pub(crate) fn from_bytes<T: Payload>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: There are enough bytes; by the trait's contract every bit pattern is valid.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}
