// SPDX-License-Identifier: GPL-2.0

//! Memory that is shared with the kernel or a device.

use super::{
    file,
    registry, //
};
use crate::{
    Error,
    PAGE_SIZE,
    Register,
    Result,
    Word, //
};
use nix::{
    errno::Errno,
    sys::mman::{
        MapFlags,
        MmapAdvise,
        ProtFlags,
        madvise,
        mmap_anonymous,
        mprotect,
        munmap, //
    },
};
#[cfg(target_has_atomic = "64")]
use std::sync::atomic::{
    AtomicU64,
    Ordering, //
};
use std::{ffi::c_void, num::NonZeroUsize, ops::Range, os::fd::AsFd, ptr::NonNull};
use zerocopy::{
    FromBytes,
    IntoBytes, //
};

/// A mapping that others can change at any time.
///
/// It is accessed by volatile copies only; no reference into it is ever created. An inaccessible
/// page follows anonymous memory, so that a request that runs past the end fails instead of
/// accessing something else.
///
/// Memory that is dropped while it is mapped for devices is freed as soon as the kernel allows. Its
/// addresses are not used again in this process, because the kernel may look them up until they are
/// unmapped; [`DmaBuffer`](crate::DmaBuffer) unmaps memory before it frees it, so that the addresses
/// can be used again.
///
/// # Panics
///
/// The functions that access memory panic if the access is outside of the memory, is misaligned, or
/// if the memory can't be read or written.
///
/// # Examples
///
/// ```
/// use vfio_client::Memory;
///
/// # fn main() -> vfio_client::Result {
/// let memory = Memory::anonymous(100)?;
/// assert_eq!(memory.len(), 4096);
/// memory.write(8, b"DMA");
/// assert_eq!(memory.to_vec(8, 3), b"DMA");
/// # Ok(())
/// # }
/// ```
///
/// # Invariants
///
/// `base` is the start of a mapping of `len` bytes (and a guard page up to `total`) that lives as
/// long as this object, and is in the registry of writable memory.
#[derive(Debug)]
pub struct Memory {
    base: NonNull<c_void>,
    len: usize,
    total: usize,
    readable: bool,
    writable: bool,
}

// SAFETY: The object owns its mapping, which is not bound to a thread.
unsafe impl Send for Memory {}
// SAFETY: All accesses are volatile and tear at worst; bytes have no invalid values.
unsafe impl Sync for Memory {}

/// The shift of the hugepage order in the flags of mmap().
const MAP_HUGE_SHIFT: u32 = 26;

impl Memory {
    /// Allocates `len` bytes of zeroed private memory, rounded up to pages.
    pub fn anonymous(len: usize) -> Result<Self> {
        Self::anonymous_with(len, MapFlags::MAP_PRIVATE)
    }

    /// Allocates zeroed memory that stays shared with child processes.
    pub fn anonymous_shared(len: usize) -> Result<Self> {
        Self::anonymous_with(len, MapFlags::MAP_SHARED)
    }

    fn anonymous_with(len: usize, flags: MapFlags) -> Result<Self> {
        let len = pages(len.max(1), PAGE_SIZE)?;
        let total = len.checked_add(PAGE_SIZE).ok_or_else(too_large)?;
        let size = NonZeroUsize::new(total).ok_or_else(too_large)?;
        // SAFETY: A new mapping at an address that the kernel chooses does not affect existing
        // memory.
        let base = unsafe {
            mmap_anonymous(
                None,
                size,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                flags | MapFlags::MAP_NORESERVE,
            )
        }
        .map_err(Error::during("mmap"))?;
        let memory = Self::adopt(base, len, total, true, true);
        let guard = base.map_addr(|addr| addr.saturating_add(len));
        // SAFETY: The guard is the last page of the mapping created above, and nothing uses it.
        unsafe { mprotect(guard, PAGE_SIZE, ProtFlags::PROT_NONE) }
            .map_err(Error::during("mprotect"))?;
        Ok(memory)
    }

    /// Allocates zeroed private hugepages of 2 to the power of `order` bytes each.
    ///
    /// No guard page follows this memory.
    pub fn huge(len: usize, order: u32) -> Result<Self> {
        let len = pages(len.max(1), 1usize.checked_shl(order).ok_or_else(too_large)?)?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_HUGETLB;
        // CAST: The order is less than 64.
        let flags = flags | MapFlags::from_bits_retain((order as i32) << MAP_HUGE_SHIFT);
        let total = NonZeroUsize::new(len).ok_or_else(too_large)?;
        // SAFETY: A new mapping at an address that the kernel chooses does not affect existing
        // memory.
        let base = unsafe {
            mmap_anonymous(
                None,
                total,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                flags,
            )
        }
        .map_err(Error::during("mmap of hugepages"))?;
        Ok(Self::adopt(base, len, len, true, true))
    }

    /// Maps `len` bytes of a file, or of a region of a VFIO device, shared.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `len` is 0.
    pub fn from_file(fd: impl AsFd, offset: u64, len: usize, writable: bool) -> Result<Self> {
        let len = pages(len, PAGE_SIZE)?;
        let size = NonZeroUsize::new(len).ok_or_else(|| Error::new("mmap", Errno::EINVAL))?;
        let prot = if writable {
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE
        } else {
            ProtFlags::PROT_READ
        };
        // SAFETY: A new mapping at an address that the kernel chooses does not affect existing
        // memory.
        let base = unsafe { file::map(None, size, prot, MapFlags::MAP_SHARED, fd, offset) }
            .map_err(Error::during("mmap"))?;
        Ok(Self::adopt(base, len, len, true, writable))
    }

    fn adopt(base: NonNull<c_void>, len: usize, total: usize, r: bool, w: bool) -> Self {
        registry::insert(base.as_ptr() as usize, len);
        // INVARIANT: The mapping is fresh, and was just registered.
        Self {
            base,
            len,
            total,
            readable: r,
            writable: w,
        }
    }

    /// Changes the access of the process itself to the memory.
    pub fn protect(&mut self, readable: bool, writable: bool) -> Result {
        let mut prot = ProtFlags::PROT_NONE;
        prot.set(ProtFlags::PROT_READ, readable);
        prot.set(ProtFlags::PROT_WRITE, writable);
        // SAFETY: By the invariant this object owns the range, and no reference points into it.
        unsafe { mprotect(self.base, self.len, prot) }.map_err(Error::during("mprotect"))?;
        self.readable = readable;
        self.writable = writable;
        Ok(())
    }

    /// Discards the pages. The next access finds zeroes.
    pub fn discard(&self) -> Result {
        self.discard_part(0..self.len)
    }

    /// Discards the pages of a part. The next access finds zeroes.
    pub(super) fn discard_part(&self, part: Range<usize>) -> Result {
        assert!(part.start <= part.end && part.end <= self.len);
        let start = self.base.map_addr(|addr| addr.saturating_add(part.start));
        // SAFETY: By the invariant this object owns the range, and no reference points into it.
        unsafe { madvise(start, part.len(), MmapAdvise::MADV_DONTNEED) }
            .map_err(Error::during("madvise"))
    }

    /// Returns the address as a number.
    pub fn addr(&self) -> u64 {
        self.base.as_ptr() as u64
    }

    /// Returns the number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether the process can read the memory.
    pub(crate) fn is_readable(&self) -> bool {
        self.readable
    }

    /// Returns whether an inaccessible page follows.
    pub(super) fn has_guard(&self) -> bool {
        self.total > self.len
    }

    /// Notes that a mapping of the memory for devices is gone.
    pub(crate) fn was_unmapped(&self) {
        registry::give_back(self.base.as_ptr() as usize);
    }

    /// Returns whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Checks an access and returns its address.
    #[track_caller]
    fn at<T: Word>(&self, offset: usize) -> *mut T {
        let end = offset.checked_add(size_of::<T>());
        assert!(
            end.is_some_and(|end| end <= self.len),
            "access at {offset:#x} is outside of {:#x} bytes",
            self.len
        );
        // The mapping starts at a page.
        let at: *mut T = self.base.as_ptr().wrapping_byte_add(offset).cast();
        assert!(at.is_aligned(), "access at {offset:#x} is misaligned");
        at
    }

    /// Reads one word.
    #[track_caller]
    fn load<T: Word>(&self, offset: usize) -> T {
        assert!(self.readable, "the memory can't be read");
        // SAFETY: `at` checked bounds and alignment; by the invariant the mapping is live. Every
        // bit pattern of a word is valid.
        unsafe { self.at::<T>(offset).read_volatile() }
    }

    /// Writes one word.
    #[track_caller]
    fn store<T: Word>(&self, offset: usize, value: T) {
        assert!(self.writable, "the memory can't be written");
        // SAFETY: `at` checked bounds and alignment; by the invariant the mapping is live, and no
        // reference points into it.
        unsafe { self.at::<T>(offset).write_volatile(value) }
    }

    /// Reads a register by one access.
    #[track_caller]
    pub fn get<T: Word>(&self, register: Register<T>) -> T {
        T::from_le(self.load(register.offset()))
    }

    /// Writes a register by one access.
    #[track_caller]
    pub fn set<T: Word>(&self, register: Register<T>, value: T) {
        self.store(register.offset(), value.to_le());
    }

    /// Reads 8 bits.
    #[track_caller]
    pub fn read_u8(&self, offset: usize) -> u8 {
        self.load(offset)
    }

    /// Reads 16 bits.
    #[track_caller]
    pub fn read_u16(&self, offset: usize) -> u16 {
        self.load(offset)
    }

    /// Reads 32 bits.
    #[track_caller]
    pub fn read_u32(&self, offset: usize) -> u32 {
        self.load(offset)
    }

    /// Reads 64 bits.
    #[track_caller]
    pub fn read_u64(&self, offset: usize) -> u64 {
        self.load(offset)
    }

    /// Writes 8 bits.
    #[track_caller]
    pub fn write_u8(&self, offset: usize, value: u8) {
        self.store(offset, value);
    }

    /// Writes 32 bits.
    #[track_caller]
    pub fn write_u32(&self, offset: usize, value: u32) {
        self.store(offset, value);
    }

    /// Writes 64 bits.
    #[track_caller]
    pub fn write_u64(&self, offset: usize, value: u64) {
        self.store(offset, value);
    }

    /// Atomically adds one to 64 bits, for all threads and processes that share the memory. Returns
    /// the previous value.
    #[cfg(target_has_atomic = "64")]
    #[track_caller]
    pub fn increment(&self, offset: usize) -> u64 {
        let at = self.at::<u64>(offset);
        // SAFETY: `at()` has checked that the aligned bytes are inside of the mapping, which lives
        // as long as this object. Other accesses are volatile copies at worst, which do not tear 64
        // bits.
        unsafe { AtomicU64::from_ptr(at) }.fetch_add(1, Ordering::SeqCst)
    }

    /// Copies bytes out of the memory.
    #[track_caller]
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        let mut at = offset;
        if offset % 8 != 0 {
            return self.read_bytes(at, out);
        }
        let mut chunks = out.chunks_exact_mut(8);
        for chunk in &mut chunks {
            chunk.copy_from_slice(&self.load::<u64>(at).to_ne_bytes());
            at = at.saturating_add(8);
        }
        self.read_bytes(at, chunks.into_remainder());
    }

    /// Copies bytes out of the memory one by one.
    #[track_caller]
    fn read_bytes(&self, offset: usize, out: &mut [u8]) {
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = self.load(offset.saturating_add(i));
        }
    }

    /// Returns a copy of a structure, which may tear if others write it meanwhile.
    #[track_caller]
    pub fn read_value<T: FromBytes + IntoBytes>(&self, offset: usize) -> T {
        let mut value = T::new_zeroed();
        self.read(offset, value.as_mut_bytes());
        value
    }

    /// Copies bytes into the memory.
    #[track_caller]
    pub fn write(&self, offset: usize, data: &[u8]) {
        for (i, byte) in data.iter().enumerate() {
            self.store(offset.saturating_add(i), *byte);
        }
    }

    /// Sets every byte of a range.
    #[track_caller]
    pub fn fill(&self, offset: usize, len: usize, byte: u8) {
        let end = offset.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.len),
            "{len:#x} bytes at {offset:#x} are outside of {:#x} bytes",
            self.len
        );
        let mut at = offset;
        let mut left = len;
        while left > 0 {
            let step = if at % 8 == 0 && left >= 8 {
                self.store(at, u64::from_ne_bytes([byte; 8]));
                8
            } else {
                self.store(at, byte);
                1
            };
            at = at.saturating_add(step);
            left = left.saturating_sub(step);
        }
    }

    /// Returns a copy of a range.
    #[track_caller]
    pub fn to_vec(&self, offset: usize, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        self.read(offset, &mut out);
        out
    }
}

/// Returns `len` rounded up to pages of a size.
fn pages(len: usize, size: usize) -> Result<usize> {
    len.checked_next_multiple_of(size).ok_or_else(too_large)
}

fn too_large() -> Error {
    Error::new("mmap", Errno::ENOMEM)
}

/// Frees addresses. If `lent`, the addresses are kept, so that nothing else is ever mapped there.
///
/// # Safety
///
/// The caller owns a mapping of `len` bytes at `base`, and nothing accesses it after this.
pub(super) unsafe fn free(base: NonNull<c_void>, len: usize, lent: bool) {
    if let (true, Some(size)) = (lent, NonZeroUsize::new(len)) {
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE | MapFlags::MAP_FIXED;
        // If this fails, the mapping stays as it is.
        // SAFETY: By the contract the caller owns these addresses.
        let _ = unsafe { mmap_anonymous(Some(base.addr()), size, ProtFlags::PROT_NONE, flags) };
        #[cfg(feature = "testing")]
        registry::keep(base.addr().get()..base.addr().get().saturating_add(len));
    } else {
        // SAFETY: By the contract the caller owns the mapping.
        let _ = unsafe { munmap(base, len) };
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let lent = registry::remove(self.base.as_ptr() as usize);
        // SAFETY: By the invariant this object owns the mapping. Nothing can access it after this.
        unsafe { free(self.base, self.total, lent) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns whether something is mapped at an address.
    fn is_mapped(addr: u64) -> bool {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().any(|line| {
            let (start, rest) = line.split_once('-').unwrap();
            let end = rest.split(' ').next().unwrap();
            let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).unwrap());
            (start..end).contains(&addr)
        })
    }

    #[test]
    fn addresses_of_a_mapping_are_not_used_again() {
        let memory = Memory::anonymous(PAGE_SIZE).unwrap();
        let addr = memory.addr();
        registry::lend(addr, 1).unwrap().keep();
        drop(memory);
        assert!(is_mapped(addr));
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for len in [usize::MAX, usize::MAX - PAGE_SIZE, usize::MAX / 2] {
            assert!(Memory::anonymous(len).is_err());
            assert!(Memory::huge(len, 21).is_err());
        }
        assert!(Memory::huge(1, 64).is_err());
        assert!(Memory::from_file(std::io::stdin(), 0, 0, false).is_err());
    }

    #[test]
    fn copies_and_fills() {
        let memory = Memory::anonymous(1).unwrap();
        for (offset, len) in [(0, 1), (3, 20), (8, 8), (16, 21), (4095, 1), (4096, 0)] {
            memory.fill(0, PAGE_SIZE, 0);
            memory.fill(offset, len, 7);
            assert_eq!(memory.to_vec(offset, len), vec![7; len]);
            let sum: usize = memory.to_vec(0, 4096).into_iter().map(usize::from).sum();
            assert_eq!(sum, 7 * len);
        }
    }

    #[test]
    fn accesses_outside_panic() {
        let memory = Memory::anonymous(1).unwrap();
        let panics = |access: &dyn Fn()| {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(access)).is_err()
        };
        assert!(panics(&|| memory.fill(usize::MAX, 2, 0)));
        assert!(panics(&|| memory.fill(PAGE_SIZE - 1, 2, 0)));
        assert!(panics(&|| memory.write(usize::MAX, &[1, 2])));
        assert!(panics(&|| drop(memory.to_vec(PAGE_SIZE - 1, 2))));
        assert!(panics(&|| _ = memory.read_u64(PAGE_SIZE - 4)));
        assert!(panics(&|| _ = memory.read_u32(2)));
    }
}
