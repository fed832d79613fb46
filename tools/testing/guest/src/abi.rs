// SPDX-License-Identifier: GPL-2.0

//! System calls on user memory. All unsafe code of the tests is in this file.

use nix::{
    libc,
    unistd::pipe, //
};
use std::os::fd::{
    AsRawFd,
    FromRawFd,
    OwnedFd, //
};
use vfio_client::{
    Errno,
    Memory, //
};

/// `IORING_REGISTER_BUFFERS`
const REGISTER_BUFFERS: libc::c_uint = 0;

/// Converts the result of a system call to an errno or a number.
fn checked(result: libc::c_long) -> Result<i32, Errno> {
    if result < 0 {
        return Err(Errno::last());
    }
    Ok(result as i32)
}

fn whole(memory: &Memory) -> libc::iovec {
    libc::iovec {
        iov_base: memory.addr() as *mut libc::c_void,
        iov_len: memory.len(),
    }
}

/// An io_uring instance that never runs. It keeps the memory registered with it pinned.
#[derive(Debug)]
pub struct Ring(OwnedFd);

impl Ring {
    /// Creates an io_uring instance.
    pub fn new() -> Result<Self, Errno> {
        // A `struct io_uring_params`.
        let mut params = [0_u64; 15];
        // SAFETY: `params` is as large as the structure. It is zero, so no option is requested.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) };
        // SAFETY: The descriptor is new, and nothing else owns it.
        checked(fd).map(|fd| Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Registers `memory` as a buffer.
    pub fn register(&self, memory: &Memory) -> Result<i32, Errno> {
        let buffer = whole(memory);
        // SAFETY: `buffer` is one `iovec`. The kernel pins the memory, but does not access it
        // unless a request is submitted.
        checked(unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                self.0.as_raw_fd(),
                REGISTER_BUFFERS,
                &raw const buffer,
                1,
            )
        })
    }
}

/// The system calls for protection keys, which the crate `libc` lacks for PowerPC.
#[cfg(target_arch = "powerpc")]
mod pkey {
    pub const ALLOC: super::libc::c_long = 384;
    pub const FREE: super::libc::c_long = 385;
    pub const MPROTECT: super::libc::c_long = 386;
}

/// The system calls for protection keys.
#[cfg(not(target_arch = "powerpc"))]
mod pkey {
    pub use super::libc::{
        SYS_pkey_alloc as ALLOC,
        SYS_pkey_free as FREE,
        SYS_pkey_mprotect as MPROTECT, //
    };
}

/// A protection key. The thread that allocated it cannot access memory tagged with it.
#[derive(Debug)]
pub struct Key(i32);

impl Key {
    /// `PKEY_DISABLE_ACCESS`
    const NO_ACCESS: libc::c_ulong = 1;

    /// Allocates a protection key.
    pub fn new() -> Result<Self, Errno> {
        // SAFETY: No memory is tagged with the key yet.
        let key = unsafe { libc::syscall(pkey::ALLOC, 0, Self::NO_ACCESS) };
        checked(key).map(Self)
    }

    /// Tags `memory` with this key. Its page protection allows reads and writes.
    pub fn protect(&self, memory: &mut Memory) -> anyhow::Result<()> {
        // `Memory` must treat it as inaccessible.
        memory.protect(false, false)?;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: The memory exists. Only the access rights of this thread change.
        let protected = unsafe {
            libc::syscall(
                pkey::MPROTECT,
                // CAST: It is an address of this process.
                memory.addr() as usize,
                memory.len(),
                prot,
                self.0,
            )
        };
        checked(protected)?;
        Ok(())
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        // SAFETY: Memory tagged with the key only becomes accessible again.
        let freed = unsafe { libc::syscall(pkey::FREE, self.0) };
        assert_eq!(checked(freed), Ok(0), "pkey_free");
    }
}

/// Splices the pages of `memory` into a pipe, which holds them until they are read.
pub fn splice(memory: &Memory) -> Result<(OwnedFd, OwnedFd), Errno> {
    let (reader, writer) = pipe()?;
    let pages = whole(memory);
    // SAFETY: `pages` is one `iovec` of existing memory. The pages are only read.
    let spliced = unsafe { libc::vmsplice(writer.as_raw_fd(), &raw const pages, 1, 0) };
    checked(spliced as libc::c_long)?;
    Ok((reader, writer))
}
