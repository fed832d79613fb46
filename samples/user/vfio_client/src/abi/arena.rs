// SPDX-License-Identifier: GPL-2.0

//! An address range at a fixed place, filled piece by piece.

use super::{
    file,
    memory::free,
    registry, //
};
use crate::{
    Error,
    Result, //
};
use nix::{
    errno::Errno,
    sys::mman::{
        MapFlags,
        MmapAdvise,
        ProtFlags,
        madvise,
        mmap_anonymous,
        mprotect, //
    },
};
use std::{
    ffi::c_void,
    fs::File,
    iter,
    num::NonZeroUsize,
    ops::Range,
    os::{
        fd::AsFd,
        unix::fs::FileExt, //
    },
    ptr::{
        NonNull,
        without_provenance_mut, //
    },
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
        let invalid = || Error::new("mmap", Errno::EINVAL);
        let base = NonNull::new(without_provenance_mut(addr)).ok_or_else(invalid)?;
        let range = addr..addr.checked_add(len).ok_or_else(invalid)?;
        // What an earlier object has left is reserved already.
        let kept = registry::take_kept(&range);
        if let Err(error) = reserve(&range, &kept) {
            kept.into_iter().for_each(registry::keep);
            return Err(error);
        }
        registry::insert(addr, len);
        if let (false, Some(lent)) = (kept.is_empty(), registry::lend(addr as u64, 1)) {
            // Devices may have these addresses.
            lent.keep();
        }
        // INVARIANT: The addresses are reserved, and were just registered.
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
        // SAFETY: By the invariant this object owns the addresses, and no reference points into
        // them.
        let filled = unsafe { file::map(Some(at.addr()), size(len)?, prot, flags, fd, offset) };
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
        let (at, _) = self.piece(&(offset..offset.saturating_add(out.len())));
        self.memory
            .read_exact_at(out, at.addr().get() as u64)
            .map_err(|error| Error::from_io("read", &error))
    }

    /// Copies bytes into the arena.
    pub fn write(&mut self, offset: usize, data: &[u8]) -> Result {
        let (at, _) = self.piece(&(offset..offset.saturating_add(data.len())));
        self.memory
            .write_all_at(data, at.addr().get() as u64)
            .map_err(|error| Error::from_io("write", &error))
    }
}

/// Reserves the addresses of a range between parts that are reserved already.
///
/// # Errors
///
/// `EEXIST` if something is mapped there; `EINVAL` if the range is empty. Nothing is reserved then.
fn reserve(range: &Range<usize>, kept: &[Range<usize>]) -> Result {
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE | MapFlags::MAP_FIXED_NOREPLACE;
    size(range.len())?;
    let starts = iter::once(range.start).chain(kept.iter().map(|part| part.end));
    let ends = kept.iter().map(|part| part.start).chain([range.end]);
    let mut reserved = Vec::new();
    for (start, end) in starts.zip(ends).filter(|(start, end)| start < end) {
        let len = size(end.saturating_sub(start))?;
        let at = NonZeroUsize::new(start);
        // SAFETY: The call fails if anything is mapped there.
        match unsafe { mmap_anonymous(at, len, ProtFlags::PROT_NONE, flags) } {
            Ok(base) => reserved.push((base, len)),
            Err(errno) => {
                for (base, len) in reserved {
                    // SAFETY: This function has just made the mapping.
                    unsafe { free(base, len.get(), false) };
                }
                return Err(Error::new("mmap", errno));
            }
        }
    }
    Ok(())
}

fn size(len: usize) -> Result<NonZeroUsize> {
    NonZeroUsize::new(len).ok_or_else(|| Error::new("mmap", Errno::EINVAL))
}

impl Drop for Arena {
    fn drop(&mut self) {
        let lent = registry::remove(self.base.as_ptr() as usize);
        // SAFETY: By the invariant this object owns the mapping. Nothing can access it after this.
        unsafe { free(self.base, self.len, lent) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PAGE_SIZE;

    #[test]
    fn only_another_arena_gets_the_addresses_of_a_mapping() {
        const ADDR: usize = 1 << 36;
        let arena = Arena::new(ADDR, 2 * PAGE_SIZE).unwrap();
        assert_eq!(
            Arena::new(ADDR, PAGE_SIZE).unwrap_err().errno(),
            Errno::EEXIST
        );
        registry::lend(arena.addr(), 1).unwrap().keep();
        drop(arena);
        // The addresses are reserved still, but not for an arena of another size.
        for pages in [1, 3, 2] {
            let mut arena = Arena::new(ADDR, pages * PAGE_SIZE).unwrap();
            arena.fill(0..pages * PAGE_SIZE, Filling::Private).unwrap();
            arena.write(0, b"new").unwrap();
        }
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED_NOREPLACE;
        let size = NonZeroUsize::new(PAGE_SIZE).unwrap();
        let none = ProtFlags::PROT_NONE;
        // SAFETY: The call fails if anything is mapped there.
        let other = unsafe { mmap_anonymous(NonZeroUsize::new(ADDR), size, none, flags) };
        assert_eq!(other, Err(Errno::EEXIST));
    }
}
