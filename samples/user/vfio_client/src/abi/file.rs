// SPDX-License-Identifier: GPL-2.0

//! Files with offsets of 64 bits. Those of a VFIO device need them on every machine, and `off_t` has
//! 32 bits on some.

use nix::{
    errno::Errno,
    libc,
    sys::mman::{
        MapFlags,
        ProtFlags, //
    },
};
use std::{
    ffi::c_void,
    num::NonZeroUsize,
    os::fd::{
        AsFd,
        AsRawFd, //
    },
    ptr::{
        NonNull,
        null_mut, //
    },
};

/// Reads from a file at an offset.
pub fn pread(fd: impl AsFd, out: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let fd = fd.as_fd().as_raw_fd();
    // CAST: off64_t carries the bit pattern.
    // SAFETY: The kernel writes only to the slice.
    let done = unsafe { libc::pread64(fd, out.as_mut_ptr().cast(), out.len(), offset as i64) };
    // CAST: No count is larger than the slice.
    Errno::result(done).map(|done| done as usize)
}

/// Writes to a file at an offset.
pub fn pwrite(fd: impl AsFd, data: &[u8], offset: u64) -> Result<usize, Errno> {
    let fd = fd.as_fd().as_raw_fd();
    // CAST: off64_t carries the bit pattern.
    // SAFETY: The kernel only reads the slice.
    let done = unsafe { libc::pwrite64(fd, data.as_ptr().cast(), data.len(), offset as i64) };
    // CAST: No count is larger than the slice.
    Errno::result(done).map(|done| done as usize)
}

/// Maps a part of a file.
///
/// # Safety
///
/// As for `mmap()` of nix: with `MAP_FIXED`, the caller owns the addresses, and no reference points
/// into them.
pub(super) unsafe fn map(
    at: Option<NonZeroUsize>,
    size: NonZeroUsize,
    prot: ProtFlags,
    flags: MapFlags,
    fd: impl AsFd,
    offset: u64,
) -> Result<NonNull<c_void>, Errno> {
    let at = at.map_or(null_mut(), |at| at.get() as *mut c_void);
    let fd = fd.as_fd().as_raw_fd();
    let (prot, flags) = (prot.bits(), flags.bits());
    // CAST: off64_t carries the bit pattern.
    // SAFETY: By the contract of this function. Without `MAP_FIXED` the kernel chooses addresses
    // where nothing is.
    let mapped = unsafe { libc::mmap64(at, size.get(), prot, flags, fd, offset as i64) };
    if mapped == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    NonNull::new(mapped).ok_or(Errno::EINVAL)
}
