// SPDX-License-Identifier: GPL-2.0

//! System calls about pages of the program, and the only unsafe code of the tests.

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

/// What a system call returned.
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

/// A ring of io_uring that never runs; it keeps the memory that is registered pinned.
#[derive(Debug)]
pub struct Ring(OwnedFd);

impl Ring {
    /// Makes one.
    pub fn new() -> Result<Self, Errno> {
        // A `struct io_uring_params`.
        let mut params = [0_u64; 15];
        // SAFETY: There is room for the structure, which asks for nothing special.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) };
        // SAFETY: The descriptor was made just now, and nobody else has it.
        checked(fd).map(|fd| Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Registers memory as a buffer.
    pub fn register(&self, memory: &Memory) -> Result<i32, Errno> {
        let buffer = whole(memory);
        // SAFETY: There is one `iovec`. Without requests the kernel doesn't access what it pins.
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

/// A protection key. The thread that made it may not access memory which has it.
#[derive(Debug)]
pub struct Key(i32);

impl Key {
    /// `PKEY_DISABLE_ACCESS`
    const NO_ACCESS: libc::c_ulong = 1;

    /// Makes one.
    pub fn new() -> Result<Self, Errno> {
        // SAFETY: Nothing has the key yet.
        let key = unsafe { libc::syscall(libc::SYS_pkey_alloc, 0, Self::NO_ACCESS) };
        checked(key).map(Self)
    }

    /// Gives this key to memory that may be read and written otherwise.
    pub fn protect(&self, memory: &mut Memory) -> anyhow::Result<()> {
        // For `Memory` it can't be accessed.
        memory.protect(false, false)?;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: The memory exists, and only this thread's right to access it changes.
        let protected = unsafe {
            libc::syscall(
                libc::SYS_pkey_mprotect,
                memory.addr(),
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
        // SAFETY: Memory that has the key only becomes accessible again.
        let freed = unsafe { libc::syscall(libc::SYS_pkey_free, self.0) };
        assert_eq!(checked(freed), Ok(0), "pkey_free");
    }
}

/// Puts pages of memory into a pipe, which keeps them until it is read.
pub fn splice(memory: &Memory) -> Result<(OwnedFd, OwnedFd), Errno> {
    let (reader, writer) = pipe()?;
    let pages = whole(memory);
    // SAFETY: There is one `iovec`, of memory that exists; the pages are only read.
    let spliced = unsafe { libc::vmsplice(writer.as_raw_fd(), &raw const pages, 1, 0) };
    checked(spliced as libc::c_long)?;
    Ok((reader, writer))
}
