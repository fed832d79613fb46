// SPDX-License-Identifier: GPL-2.0

//! An address range at a fixed place, filled piece by piece.

use super::registry;
use crate::{
    Error,
    Result, //
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
    fs::File,
    num::NonZeroUsize,
    ops::Range,
    os::{
        fd::AsFd,
        unix::fs::FileExt, //
    },
    ptr::NonNull, //
};

/// The content of a piece of an [`Arena`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filling {
    /// Nothing; accesses fail.
    Nothing,
    /// Zeroed private memory.
    Private,
    /// Zeroed memory that is shared with child processes.
    Shared,
    /// Zeroed private memory in hugepages of 2 MiB.
    Huge,
}

/// The madvise() advice for a piece of an [`Arena`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Discard the pages. The next access finds the file's content, or zeroes.
    Discard,
    /// Use transparent huge pages where possible.
    Huge,
    /// Populate all pages for reading.
    Read,
    /// Populate all pages for writing.
    Write,
}

/// A large address range in which nothing else is ever mapped.
///
/// Only the kernel accesses its memory, including on behalf of [`read`](Self::read) and
/// [`write`](Self::write). So no Rust reference points into it, and these functions return an error
/// where it cannot be accessed.
///
/// # Invariants
///
/// The `len` addresses starting at `base` belong to this object as long as it lives, and are in the
/// registry of writable memory.
#[derive(Debug)]
pub struct Arena {
    base: NonNull<c_void>,
    len: usize,
    memory: File,
}

impl Arena {
    /// Reserves `len` bytes of addresses at `addr`.
    ///
    /// # Errors
    ///
    /// `EEXIST` if something is mapped there.
    pub fn new(addr: usize, len: usize) -> Result<Self> {
        let memory = File::options()
            .read(true)
            .write(true)
            .open("/proc/self/mem")
            .map_err(|error| Error::from_io("/proc/self/mem", &error))?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        let none = ProtFlags::PROT_NONE;
        let size = size(len)?;
        // SAFETY: The call fails if anything is mapped there.
        let base = unsafe {
            mmap_anonymous(
                NonZeroUsize::new(addr),
                size,
                none,
                flags | MapFlags::MAP_FIXED_NOREPLACE,
            )
        }
        .map_err(Error::during("mmap"))?;
        registry::insert(addr, len);
        // INVARIANT: The mapping is fresh, and was just registered.
        Ok(Self { base, len, memory })
    }

    /// Returns the first address.
    pub fn addr(&self) -> u64 {
        self.base.as_ptr() as u64
    }

    /// Checks that a piece is inside, and returns its address and length.
    #[track_caller]
    fn piece(&self, piece: &Range<usize>) -> (NonNull<c_void>, usize) {
        assert!(
            piece.start <= piece.end && piece.end <= self.len,
            "{piece:x?} is outside of {:#x} bytes",
            self.len
        );
        let at = self.base.map_addr(|addr| addr.saturating_add(piece.start));
        (at, piece.len())
    }

    /// Replaces the content of a piece.
    pub fn fill(&mut self, piece: Range<usize>, filling: Filling) -> Result {
        let (at, len) = self.piece(&piece);
        let flags = match filling {
            Filling::Nothing => MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE,
            Filling::Private => MapFlags::MAP_PRIVATE,
            Filling::Shared => MapFlags::MAP_SHARED,
            Filling::Huge => MapFlags::MAP_PRIVATE | MapFlags::MAP_HUGETLB | MapFlags::MAP_HUGE_2MB,
        };
        let prot = if filling == Filling::Nothing {
            ProtFlags::PROT_NONE
        } else {
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE
        };
        let addr = Some(at.addr());
        // SAFETY: By the invariant this object owns the addresses, and no reference points into
        // them.
        let filled = unsafe { mmap_anonymous(addr, size(len)?, prot, flags | MapFlags::MAP_FIXED) };
        self.keep(piece, filled.map(drop))
    }

    /// Maps a part of a file into a piece, shared.
    pub fn fill_from(&mut self, piece: Range<usize>, fd: impl AsFd, offset: u64) -> Result {
        let (at, len) = self.piece(&piece);
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_FIXED;
        let offset = offset as i64; // CAST: off_t carries the bit pattern.
        // SAFETY: By the invariant this object owns the addresses, and no reference points into
        // them.
        let filled = unsafe { mmap(Some(at.addr()), size(len)?, prot, flags, fd, offset) };
        self.keep(piece, filled.map(drop))
    }

    /// Returns the result of filling a piece. A failed call may have left the piece unmapped, so
    /// this function reserves the addresses again.
    fn keep(&mut self, piece: Range<usize>, filled: nix::Result<()>) -> Result {
        if filled.is_err() && !piece.is_empty() {
            let (at, len) = self.piece(&piece);
            let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE | MapFlags::MAP_FIXED;
            // SAFETY: By the invariant this object owns the addresses, and no reference points into
            // them.
            unsafe { mmap_anonymous(Some(at.addr()), size(len)?, ProtFlags::PROT_NONE, flags) }
                .map_err(Error::during("mmap"))?;
        }
        filled.map_err(Error::during("mmap"))
    }

    /// Changes the access of the process itself to a piece.
    pub fn protect(&mut self, piece: Range<usize>, readable: bool, writable: bool) -> Result {
        let (at, len) = self.piece(&piece);
        let mut prot = ProtFlags::PROT_NONE;
        prot.set(ProtFlags::PROT_READ, readable);
        prot.set(ProtFlags::PROT_WRITE, writable);
        // SAFETY: By the invariant this object owns the addresses, and no reference points into
        // them.
        unsafe { mprotect(at, len, prot) }.map_err(Error::during("mprotect"))
    }

    /// Advises the kernel about a piece.
    pub fn advise(&mut self, piece: Range<usize>, advice: Advice) -> Result {
        let (at, len) = self.piece(&piece);
        let advice = match advice {
            Advice::Discard => MmapAdvise::MADV_DONTNEED,
            Advice::Huge => MmapAdvise::MADV_HUGEPAGE,
            Advice::Read => MmapAdvise::MADV_POPULATE_READ,
            Advice::Write => MmapAdvise::MADV_POPULATE_WRITE,
        };
        // SAFETY: By the invariant this object owns the addresses, and no reference points into
        // them.
        unsafe { madvise(at, len, advice) }.map_err(Error::during("madvise"))
    }

    /// Copies bytes out of the arena.
    pub fn read(&self, offset: usize, out: &mut [u8]) -> Result {
        let (at, _) = self.piece(&(offset..offset + out.len()));
        self.memory
            .read_exact_at(out, at.addr().get() as u64)
            .map_err(|error| Error::from_io("read", &error))
    }

    /// Copies bytes into the arena.
    pub fn write(&mut self, offset: usize, data: &[u8]) -> Result {
        let (at, _) = self.piece(&(offset..offset + data.len()));
        self.memory
            .write_all_at(data, at.addr().get() as u64)
            .map_err(|error| Error::from_io("write", &error))
    }
}

fn size(len: usize) -> Result<NonZeroUsize> {
    NonZeroUsize::new(len).ok_or(Error::new("mmap", nix::errno::Errno::EINVAL))
}

impl Drop for Arena {
    fn drop(&mut self) {
        registry::remove(self.base.as_ptr() as usize);
        // SAFETY: By the invariant this object owns the mapping. Nothing can access it after this.
        let _ = unsafe { munmap(self.base, self.len) };
    }
}
