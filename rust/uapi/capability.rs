// SPDX-License-Identifier: GPL-2.0

//! Capability chains that follow the `*_INFO` structures: `struct vfio_info_cap`.
//!
//! Each capability begins at a multiple of 8 bytes with a `struct vfio_info_cap_header`: its id,
//! its version and the offset of the next header (zero in the last header). While a chain is
//! built, offsets count from the start of the chain. Before the chain is copied to userspace, they
//! are shifted to count from the start of the structure that precedes it.

use core::mem::size_of;

use kernel::{
    prelude::*,
    transmute::AsBytes,
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};

use super::Argument;
use crate::bindings;

/// Size in bytes of a header.
const HEADER_SIZE: usize = size_of::<bindings::vfio_info_cap_header>();

/// The alignment of every capability.
const ALIGN: usize = 8;

/// A capability chain in a buffer that drivers and the core extend: `struct vfio_info_cap`.
///
/// # Invariants
///
/// The buffer is null and the size is 0, or the buffer is from `kmalloc()` and its first `size`
/// bytes are initialised. Nothing else uses the buffer.
#[repr(transparent)]
pub struct InfoCaps(bindings::vfio_info_cap);

impl InfoCaps {
    /// Returns an empty chain with memory for capabilities of `capacity` bytes in total, so that
    /// adding them does not allocate memory again.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn with_capacity(capacity: usize) -> Result<Self> {
        // SAFETY: The function allocates a buffer if it gets none.
        let buf = unsafe { krealloc(core::ptr::null_mut(), capacity) };
        if buf.is_null() {
            return Err(ENOMEM);
        }
        // INVARIANT: The buffer is new, and none of its bytes counts as initialised.
        Ok(Self(bindings::vfio_info_cap {
            buf: buf.cast(),
            size: 0,
        }))
    }

    /// Borrows a chain from a driver.
    ///
    /// # Safety
    ///
    /// `caps` is valid during `'a`, only the caller uses it, and it meets the type invariant.
    pub unsafe fn from_raw<'a>(caps: *mut bindings::vfio_info_cap) -> &'a mut Self {
        // CAST: `Self` is transparent.
        // SAFETY: By this function's contract.
        unsafe { &mut *caps.cast() }
    }

    /// Returns the chain for a driver to extend by `vfio_info_cap_add()`.
    #[inline]
    pub fn as_raw(&mut self) -> *mut bindings::vfio_info_cap {
        &raw mut self.0
    }

    /// Returns the chain.
    fn bytes(&mut self) -> &mut [u8] {
        if self.0.buf.is_null() {
            return &mut [];
        }
        // SAFETY: By the type invariant.
        unsafe { core::slice::from_raw_parts_mut(self.0.buf.cast(), self.0.size) }
    }

    /// Appends a capability of `size` bytes: its header, then zeroes. Returns the capability.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; the chain is empty then.
    pub fn add(&mut self, id: u16, version: u16, size: usize) -> Result<&mut [u8]> {
        let at = self.0.size;
        let total = aligned_size(size).and_then(|size| size.checked_add(at));
        let buf = total.map_or(core::ptr::null_mut(), |total| {
            // SAFETY: By the type invariant the buffer is null or from `kmalloc()`.
            unsafe { krealloc(self.0.buf.cast(), total) }
        });
        let (Some(total), false) = (total, buf.is_null()) else {
            *self = Self::default();
            return Err(ENOMEM);
        };
        // SAFETY: The buffer was allocated above with `total` bytes.
        unsafe { buf.add(at).write_bytes(0, total - at) };
        // INVARIANT: The former content is initialised, and the rest was zeroed above.
        self.0.buf = buf.cast();
        self.0.size = total;
        let chain = self.bytes();
        append(chain, at, id, version);
        Ok(&mut chain[at..])
    }

    /// Appends a copy of the capability `cap`, except for its header.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; the chain is empty then.
    pub fn push<T: Capability>(&mut self, cap: &T) -> Result {
        self.push_with(cap, core::iter::empty::<u8>())
    }

    /// Like [`push`](Self::push), for a capability that ends in an array.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; the chain is empty then.
    pub fn push_with<T: Capability, U: AsBytes>(
        &mut self,
        cap: &T,
        array: impl ExactSizeIterator<Item = U>,
    ) -> Result {
        const { assert!(size_of::<T>() >= HEADER_SIZE && size_of::<U>() > 0) };
        let size = array.len().checked_mul(size_of::<U>());
        let size = size.and_then(|size| size.checked_add(size_of::<T>()));
        let new = self.add(T::ID, T::VERSION, size.ok_or(ENOMEM)?)?;
        let (fixed, items) = new.split_at_mut(size_of::<T>());
        fixed[HEADER_SIZE..].copy_from_slice(&cap.as_bytes()[HEADER_SIZE..]);
        for (to, item) in items.chunks_exact_mut(size_of::<U>()).zip(array) {
            to.copy_from_slice(item.as_bytes());
        }
        Ok(())
    }

    /// Returns whether the chain has no capability.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.size == 0
    }

    /// Adds `offset` to all offsets, so that they are relative to `offset` bytes before the chain.
    pub fn shift(&mut self, offset: usize) {
        shift(self.bytes(), offset);
    }

    /// Writes the chain to user memory, after the structure `T` at `arg`, unless `argsz` is too
    /// small for both. Returns the new values of its fields `argsz` and `cap_offset`: if `argsz` is
    /// too small, the necessary size and 0.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    pub fn write_behind<T: Argument>(mut self, arg: UserPtr, argsz: u32) -> Result<(u32, u32)> {
        let offset = size_of::<T>();
        let size = self.0.size;
        if (argsz as usize) < offset + size {
            return Ok(((offset + size) as u32, 0));
        }
        self.shift(offset);
        // Drivers in C made the buffer, so its size is checked against that of the heap object.
        UserSlice::new(arg.wrapping_byte_add(offset), size)
            .writer()
            .write_slice(self.bytes())?;
        Ok((argsz, offset as u32))
    }
}

impl Default for InfoCaps {
    /// Returns an empty chain.
    #[inline]
    fn default() -> Self {
        // INVARIANT: There is no buffer.
        Self(bindings::vfio_info_cap {
            buf: core::ptr::null_mut(),
            size: 0,
        })
    }
}

impl Drop for InfoCaps {
    #[inline]
    fn drop(&mut self) {
        if !self.0.buf.is_null() {
            // SAFETY: By the type invariant the buffer is from `kmalloc()`.
            unsafe { bindings::kfree(self.0.buf.cast()) }
        }
    }
}

/// Changes the size of a buffer. On failure returns null, and the buffer stays as it is.
///
/// # Safety
///
/// `buf` is null or from `kmalloc()`.
unsafe fn krealloc(buf: *mut u8, size: usize) -> *mut u8 {
    // SAFETY: By this function's contract.
    unsafe {
        bindings::krealloc_node_align_noprof(
            buf.cast(),
            size,
            ALIGN,
            bindings::GFP_KERNEL,
            bindings::NUMA_NO_NODE,
        )
        .cast()
    }
}

/// A capability, which begins with a `struct vfio_info_cap_header`.
pub trait Capability: AsBytes {
    /// The id in the header.
    const ID: u16;
    /// The version in the header.
    const VERSION: u16 = 1;
}

/// `struct vfio_iommu_type1_info_cap_migration`, with its padding as a field.
#[repr(C)]
#[derive(Default)]
pub struct MigrationCap {
    header: bindings::vfio_info_cap_header,
    flags: u32,
    padding: u32,
    pgsize_bitmap: u64,
    max_dirty_bitmap_size: u64,
}

impl MigrationCap {
    /// Creates the capability. `pgsize_bitmap` has one bit for each page size of dirty bitmaps;
    /// `max_dirty_bitmap_size` is in bytes.
    pub fn new(pgsize_bitmap: u64, max_dirty_bitmap_size: u64) -> Self {
        Self {
            pgsize_bitmap,
            max_dirty_bitmap_size,
            ..Self::default()
        }
    }
}

const _: () = {
    use bindings::vfio_iommu_type1_info_cap_migration as C;
    use core::mem::offset_of;
    assert!(size_of::<MigrationCap>() == size_of::<C>());
    assert!(offset_of!(MigrationCap, flags) == offset_of!(C, flags));
    assert!(offset_of!(MigrationCap, pgsize_bitmap) == offset_of!(C, pgsize_bitmap));
    assert!(
        offset_of!(MigrationCap, max_dirty_bitmap_size) == offset_of!(C, max_dirty_bitmap_size)
    );
};

// SAFETY: The structure consists of integers without padding.
unsafe impl AsBytes for MigrationCap {}

impl Capability for MigrationCap {
    const ID: u16 = bindings::VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION as u16;
}

impl Capability for bindings::vfio_iommu_type1_info_dma_avail {
    const ID: u16 = bindings::VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL as u16;
}

impl Capability for bindings::vfio_iommu_type1_info_cap_iova_range {
    const ID: u16 = bindings::VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE as u16;
}

/// Returns the size in bytes that a capability of `size` bytes takes in a chain, or `None` on
/// overflow.
const fn aligned_size(size: usize) -> Option<usize> {
    size.checked_next_multiple_of(ALIGN)
}

fn next(chain: &[u8], at: usize) -> Option<usize> {
    let field = chain.get(at..at + HEADER_SIZE)?;
    let next = u32::from_ne_bytes([field[4], field[5], field[6], field[7]]);
    Some(next as usize)
}

fn set_next(chain: &mut [u8], at: usize, next: usize) {
    if let Some(field) = chain.get_mut(at + 4..at + HEADER_SIZE) {
        field.copy_from_slice(&(next as u32).to_ne_bytes());
    }
}

/// Adds a capability at byte `at`, where the chain ends and zeroes begin. Writes the header and
/// links it to the chain.
fn append(chain: &mut [u8], at: usize, id: u16, version: u16) {
    let Some(new) = chain.get_mut(at..).filter(|new| new.len() >= HEADER_SIZE) else {
        return;
    };
    new[0..2].copy_from_slice(&id.to_ne_bytes());
    new[2..4].copy_from_slice(&version.to_ne_bytes());
    if at > 0 {
        let last = last(chain);
        set_next(chain, last, at);
    }
}

/// Returns the offset of the last capability.
fn last(chain: &[u8]) -> usize {
    let mut at = 0;
    while let Some(next) = next(chain, at).filter(|&next| next > at) {
        at = next;
    }
    at
}

/// Adds `offset` to all offsets, so that they are relative to `offset` bytes before the chain.
fn shift(chain: &mut [u8], offset: usize) {
    let mut at = 0;
    while let Some(next) = next(chain, at).filter(|&next| next > at) {
        set_next(chain, at, next.wrapping_add(offset));
        at = next;
    }
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(kernel_ext_capability)]
mod tests {
    use super::*;

    /// Builds a chain of capabilities with the given sizes in bytes. Their ids start at 1.
    fn chain(sizes: &[usize]) -> Result<KVec<u8>> {
        let mut chain = KVec::new();
        for (i, &size) in sizes.iter().enumerate() {
            let at = chain.len();
            let size = aligned_size(size).ok_or(EOVERFLOW)?;
            chain.extend_with(size, 0, GFP_KERNEL)?;
            append(&mut chain, at, i as u16 + 1, 7);
        }
        Ok(chain)
    }

    #[test]
    fn sizes_are_aligned() {
        for (size, aligned) in [(0, 0), (1, 8), (8, 8), (9, 16), (24, 24)] {
            assert_eq!(aligned_size(size), Some(aligned));
        }
        assert_eq!(aligned_size(usize::MAX), None);
    }

    #[test]
    fn walk_finds_every_capability() -> Result {
        let sizes = [8, 9, 24, 17, 8];
        let mut chain = chain(&sizes)?;
        for offset in [0, 24, 32] {
            let mut copy = KVec::new();
            copy.extend_from_slice(&chain, GFP_KERNEL)?;
            shift(&mut copy, offset);
            let mut at = 0;
            for id in 1..=sizes.len() {
                assert_eq!(u16::from_ne_bytes([copy[at], copy[at + 1]]), id as u16);
                assert_eq!(u16::from_ne_bytes([copy[at + 2], copy[at + 3]]), 7);
                let next = next(&copy, at).ok_or(EINVAL)?;
                if id == sizes.len() {
                    assert_eq!(next, 0);
                } else {
                    at = next - offset;
                    assert_eq!(at % ALIGN, 0);
                }
            }
        }
        shift(&mut chain[..0], 24);
        Ok(())
    }

    #[test]
    fn content_is_zeroed() -> Result {
        // The second chain probably gets the buffer of the first.
        for _ in 0..2 {
            let mut chain = InfoCaps::with_capacity(64)?;
            for id in 1..=2 {
                let new = chain.add(id, 1, 32)?;
                assert!(new[HEADER_SIZE..].iter().all(|&byte| byte == 0));
                new[HEADER_SIZE..].fill(0xff);
            }
        }
        Ok(())
    }

    #[test]
    fn chain_of_three() -> Result {
        let mut chain = InfoCaps::default();
        chain.push(&bindings::vfio_iommu_type1_info_dma_avail {
            avail: 0x01020304,
            ..Default::default()
        })?;
        let ranges = bindings::vfio_iommu_type1_info_cap_iova_range {
            nr_iovas: 1,
            ..Default::default()
        };
        chain.push_with(
            &ranges,
            [bindings::vfio_iova_range { start: 7, end: 8 }].into_iter(),
        )?;
        chain.add(1, 1, HEADER_SIZE)?;
        chain.shift(24);
        let mut expected = [0u8; 56];
        let mut put =
            |at: usize, bytes: &[u8]| expected[at..at + bytes.len()].copy_from_slice(bytes);
        for (offset, id, next) in [(0, 3u16, 24u32 + 16), (16, 1, 24 + 48), (48, 1, 0)] {
            put(offset, &id.to_ne_bytes());
            put(offset + 2, &1u16.to_ne_bytes());
            put(offset + 4, &next.to_ne_bytes());
        }
        put(8, &0x01020304u32.to_ne_bytes());
        put(24, &1u32.to_ne_bytes());
        put(32, &7u64.to_ne_bytes());
        put(40, &8u64.to_ne_bytes());
        assert_eq!(chain.bytes(), &expected);
        Ok(())
    }
}
