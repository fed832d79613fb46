// SPDX-License-Identifier: GPL-2.0

//! Memory that is shared with the kernel or a device.

use super::registry;
use crate::{
    Error,
    PAGE_SIZE,
    Register,
    Result,
    Word, //
};
use nix::sys::mman::{
    MapFlags,
    MmapAdvise,
    ProtFlags,
    madvise,
    mmap,
    mmap_anonymous,
    mprotect,
    munmap, //
};
use std::{
    ffi::c_void,
    num::NonZeroUsize,
    ops::Range,
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{
        AtomicU64,
        Ordering, //
    }, //
};
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
        let len = len.next_multiple_of(PAGE_SIZE).max(PAGE_SIZE);
        let total = len + PAGE_SIZE;
        let size = NonZeroUsize::new(total).unwrap_or(NonZeroUsize::MIN);
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
        let size = 1usize << order;
        let len = len.next_multiple_of(size).max(size);
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_HUGETLB;
        let flags = flags | MapFlags::from_bits_retain((order as i32) << MAP_HUGE_SHIFT);
        let total = NonZeroUsize::new(len).unwrap_or(NonZeroUsize::MIN);
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
    pub fn from_file(fd: impl AsFd, offset: u64, len: usize, writable: bool) -> Result<Self> {
        let size = NonZeroUsize::new(len).ok_or(Error::new("mmap", nix::errno::Errno::EINVAL))?;
        let prot = if writable {
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE
        } else {
            ProtFlags::PROT_READ
        };
        let offset = offset as i64; // CAST: off_t carries the bit pattern.
        // SAFETY: A new mapping at an address that the kernel chooses does not affect existing
        // memory.
        let base = unsafe { mmap(None, size, prot, MapFlags::MAP_SHARED, fd, offset) }
            .map_err(Error::during("mmap"))?;
        let len = len.next_multiple_of(PAGE_SIZE);
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
        assert!(
            offset % size_of::<T>() == 0,
            "access at {offset:#x} is misaligned"
        );
        self.base.as_ptr().cast::<u8>().wrapping_add(offset).cast()
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
        let words = if offset % 8 == 0 { out.len() / 8 } else { 0 };
        let (head, tail) = out.split_at_mut(words * 8);
        for chunk in head.chunks_exact_mut(8) {
            chunk.copy_from_slice(&self.load::<u64>(at).to_ne_bytes());
            at += 8;
        }
        for byte in tail {
            *byte = self.load(at);
            at += 1;
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
            self.store(offset + i, *byte);
        }
    }

    /// Sets every byte of a range.
    #[track_caller]
    pub fn fill(&self, offset: usize, len: usize, byte: u8) {
        let mut at = offset;
        let end = offset + len;
        while at < end {
            if at % 8 == 0 && end - at >= 8 {
                self.store(at, u64::from_ne_bytes([byte; 8]));
                at += 8;
            } else {
                self.store(at, byte);
                at += 1;
            }
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

impl Drop for Memory {
    fn drop(&mut self) {
        registry::remove(self.base.as_ptr() as usize);
        // SAFETY: By the invariant this object owns the mapping. Nothing can access it after this.
        let _ = unsafe { munmap(self.base, self.total) };
    }
}
