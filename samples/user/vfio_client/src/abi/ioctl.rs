// SPDX-License-Identifier: GPL-2.0

//! The system call.

use super::{
    Memory,
    registry, //
};
use crate::{
    PAGE_SIZE,
    request, //
};
use nix::{
    errno::Errno,
    libc, //
};
use std::os::fd::{
    AsFd,
    AsRawFd,
    FromRawFd,
    OwnedFd,
    RawFd, //
};

fn syscall(fd: impl AsFd, nr: u32, arg: usize) -> Result<i32, Errno> {
    // SAFETY: The callers made sure that `arg` is a plain value, an address at which nothing can be
    // mapped, or an address inside of a `Memory`, which the kernel may write.
    let ret = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::c_ulong::from(nr), arg) };
    Errno::result(ret)
}

/// Sends a request whose argument is a number, or a pointer to nowhere.
///
/// # Panics
///
/// If something could be mapped at `value`.
#[track_caller]
pub(crate) fn ioctl_value(fd: impl AsFd, nr: u32, value: u64) -> Result<i32, Errno> {
    let number = matches!(nr, request::CHECK_EXTENSION | request::SET_IOMMU);
    assert!(
        number || registry::may_write(value, PAGE_SIZE as u64),
        "{value:#x} may be the address of something"
    );
    syscall(fd, nr, value as usize)
}

/// Sends a request with a copy of `bytes`, and copies back what the kernel made of it.
///
/// The copy ends right before a page which can't be accessed: a kernel that reads or writes more
/// than it was given gets a fault.
#[track_caller]
pub(crate) fn ioctl_bytes(fd: impl AsFd, nr: u32, bytes: &mut [u8]) -> Result<i32, Errno> {
    let memory = Memory::anonymous(bytes.len()).map_err(|e| e.errno())?;
    let offset = memory.len() - bytes.len();
    memory.write(offset, bytes);
    let result = ioctl_at(fd, nr, &memory, offset);
    memory.read(offset, bytes);
    result
}

/// Sends a request with the address of a byte of `memory`.
///
/// # Panics
///
/// If the request carries an address at which something other than a [`Memory`] could be.
#[track_caller]
pub(crate) fn ioctl_at(
    fd: impl AsFd,
    nr: u32,
    memory: &Memory,
    offset: usize,
) -> Result<i32, Errno> {
    assert!(
        offset <= memory.len(),
        "the request is outside of the memory"
    );
    check_pointers(nr, memory, offset);
    syscall(fd, nr, memory.addr() as usize + offset)
}

/// Checks the addresses inside of the requests which have some.
#[track_caller]
fn check_pointers(nr: u32, memory: &Memory, offset: usize) {
    let (address, length) = match nr {
        request::IOMMU_MAP_DMA => (8, 24),
        request::IOMMU_UNMAP_DMA => (40, 32),
        request::IOMMU_DIRTY_PAGES => (40, 32),
        _ => return,
    };
    let word = |at: usize| {
        let mut bytes = [0; 8];
        let at = offset + at;
        (at + 8 <= memory.len() && memory.is_readable()).then(|| {
            memory.read(at, &mut bytes);
            u64::from_ne_bytes(bytes)
        })
    };
    if let (Some(address), Some(length)) = (word(address), word(length)) {
        assert!(
            registry::may_write(address, length),
            "request {nr:#x} would let the kernel write {length:#x} bytes at {address:#x}"
        );
    }
}

/// Opens a device by its name in a group.
pub(crate) fn device_fd(group: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    let fd = ioctl_bytes(group, request::GROUP_GET_DEVICE_FD, &mut bytes)?;
    // SAFETY: The kernel has just made this descriptor for us; nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a descriptor for the open file that a number stands for.
pub(crate) fn duplicate(number: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: Duplicating changes nothing about the original, whoever it belongs to.
    let fd = Errno::result(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0) })?;
    // SAFETY: The kernel has just made this descriptor for us; nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
