// SPDX-License-Identifier: GPL-2.0

//! The ioctl system call.

use super::{
    Memory,
    registry::{
        Lent,
        lend, //
    },
};
use crate::{
    Bytes, IovaRange, PAGE_SIZE, pamu, request,
    structures::{
        Bitmap,
        DirtyPages,
        DirtyRange,
        DmaMap,
        DmaUnmap,
        Feature,
        IoasIovaRanges,
        IoasMap,
        LoggingReport,
        MigState,
        argsz, //
    },
    uapi::{
        VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
        VFIO_DEVICE_FEATURE_GET,
        VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
        VFIO_DEVICE_FEATURE_SET,
        VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
        VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP, //
    },
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
use zerocopy::{
    FromBytes,
    IntoBytes, //
};

pub(super) fn syscall(fd: impl AsFd, nr: u32, arg: u64) -> Result<i32, Errno> {
    let arg = usize::try_from(arg).map_err(|_| Errno::EFAULT)?;
    // SAFETY: The callers ensure that `arg` is a plain value, an address at which nothing can be
    // mapped, or an address inside of a `Memory`, which the kernel may write.
    let ret = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::c_ulong::from(nr), arg) };
    Errno::result(ret)
}

/// Sends a request whose argument is a number, or a pointer that can never be mapped.
///
/// # Panics
///
/// If something could be mapped at `value`.
#[track_caller]
pub(crate) fn ioctl_value(fd: impl AsFd, nr: u32, value: u64) -> Result<i32, Errno> {
    let number = matches!(nr, request::CHECK_EXTENSION | request::SET_IOMMU);
    let lent = if number {
        None
    } else {
        lend(value, PAGE_SIZE as u64)
    };
    assert!(
        number || lent.is_some(),
        "{value:#x} may be the address of something"
    );
    #[cfg(test)]
    if let Some(answer) = super::hostile::value() {
        return answer;
    }
    syscall(fd, nr, value)
}

/// Sends a request with a copy of `bytes`, and copies the kernel's result back.
///
/// The copy ends right before an inaccessible page: a kernel that reads or writes too much faults.
#[track_caller]
pub(crate) fn ioctl_bytes(fd: impl AsFd, nr: u32, bytes: &mut [u8]) -> Result<i32, Errno> {
    let mut memory = Memory::anonymous(bytes.len()).map_err(|e| e.errno())?;
    let offset = memory.len().saturating_sub(bytes.len());
    memory.write(offset, bytes);
    let result = ioctl_at(fd, nr, &mut memory, offset);
    memory.read(offset, bytes);
    result
}

/// The bytes that must follow an address of a request in memory without a page behind it that
/// faults. No structure of the interface is larger, but for the capabilities that a program makes
/// room for.
const ROOM: usize = 2048;

/// Sends a request with the address of a byte of `memory`.
///
/// The memory is borrowed mutably, so that no address changes after it was checked.
///
/// # Panics
///
/// If the request contains an address at which something other than a [`Memory`] could be, or the
/// kernel could write beyond the memory.
#[track_caller]
pub(crate) fn ioctl_at(
    fd: impl AsFd,
    nr: u32,
    memory: &mut Memory,
    offset: usize,
) -> Result<i32, Errno> {
    let room = memory.len().checked_sub(offset);
    assert!(
        room.is_some_and(|room| memory.has_guard() || room >= ROOM),
        "the request is outside of the memory"
    );
    let lent = check_pointers(nr, memory, offset);
    let address = memory.addr().saturating_add(offset as u64);
    #[cfg(test)]
    if let Some(answer) = super::hostile::structure(memory, offset) {
        return answer;
    }
    let result = syscall(fd, nr, address);
    lent.settle(nr, result);
    result
}

/// The memory that a request in execution can use.
#[derive(Debug)]
pub(super) struct Targets([Option<Lent>; 2]);

impl Targets {
    /// Returns the memory after the request, or leaves it lent if devices can access it from now on.
    pub(super) fn settle(self, nr: u32, result: Result<i32, Errno>) {
        let maps = matches!(nr, request::IOMMU_MAP_DMA | request::IOMMU_IOAS_MAP);
        // The mapping may exist if only the answer could not be written.
        if maps && matches!(result, Ok(_) | Err(Errno::EFAULT)) {
            self.0.into_iter().flatten().for_each(Lent::keep);
        }
    }
}

/// Checks the addresses inside of the requests that contain some.
///
/// Some requests of devices have the same numbers. Their structures are checked as if they
/// contained an address, which is harmless.
#[track_caller]
pub(super) fn check_pointers(nr: u32, memory: &Memory, offset: usize) -> Targets {
    let targets = [target(nr, memory, offset), report(nr, memory, offset)];
    Targets(targets.map(|target| {
        let (address, length) = target?;
        let lent = lend(address, length);
        assert!(
            lent.is_some(),
            "request {nr:#x} would let the kernel write {length:#x} bytes at {address:#x}"
        );
        lent
    }))
}

/// Returns the structure at `offset`, unless the kernel cannot read all of it.
fn peek<T: FromBytes + IntoBytes>(memory: &Memory, offset: usize) -> Option<T> {
    let end = offset.checked_add(size_of::<T>())?;
    let fits = memory.is_readable() && end <= memory.len();
    fits.then(|| memory.read_value(offset))
}

/// Returns the address and the length of the memory that a request lets a device or the kernel
/// write.
fn target(nr: u32, memory: &Memory, offset: usize) -> Option<(u64, u64)> {
    match nr {
        request::IOMMU_MAP_DMA => {
            let map: DmaMap = peek(memory, offset)?;
            // A backend that knows this flag takes no address, and others reject the flag.
            let no_memory = map.flags & pamu::MAP_FLAG_MSI != 0;
            (map.flags != 0 && !no_memory).then_some((map.vaddr, map.size))
        }
        request::IOMMU_UNMAP_DMA => {
            let unmap: DmaUnmap = peek(memory, offset)?;
            let bitmap: Bitmap = peek(memory, offset.checked_add(size_of::<DmaUnmap>())?)?;
            (unmap.flags & VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP != 0)
                .then_some((bitmap.data, bitmap.size))
        }
        request::IOMMU_DIRTY_PAGES => {
            let dirty: DirtyPages = peek(memory, offset)?;
            let DirtyRange { bitmap, .. } =
                peek(memory, offset.checked_add(size_of::<DirtyPages>())?)?;
            (dirty.flags & VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP != 0)
                .then_some((bitmap.data, bitmap.size))
        }
        request::IOMMU_IOAS_MAP => {
            let map: IoasMap = peek(memory, offset)?;
            Some((map.user_va, map.length))
        }
        request::IOMMU_IOAS_IOVA_RANGES => {
            let ranges: IoasIovaRanges = peek(memory, offset)?;
            let size = u64::from(ranges.num_iovas).saturating_mul(size_of::<IovaRange>() as u64);
            Some((ranges.allowed_iovas, size))
        }
        _ => None,
    }
}

/// Returns the address and the length of the bitmap of a DMA logging report, which is a feature of
/// devices.
fn report(nr: u32, memory: &Memory, offset: usize) -> Option<(u64, u64)> {
    const GET_REPORT: u32 = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT;
    if nr != request::DEVICE_FEATURE {
        return None;
    }
    let feature: Feature = peek(memory, offset)?;
    let report: LoggingReport = peek(memory, offset.checked_add(size_of::<Feature>())?)?;
    let is_valid = feature.flags & GET_REPORT == GET_REPORT
        && report.page_size >= PAGE_SIZE as u64
        && report.iova.checked_add(report.length).is_some();
    // The kernel writes whole words of 64 bits.
    let bits = report.length.checked_div(report.page_size).unwrap_or(0);
    let words = bits.div_ceil(64).saturating_add(1);
    is_valid.then_some((report.bitmap, words.saturating_mul(8)))
}

/// Opens a device by its name in a group.
pub(crate) fn device_fd(group: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    let fd = ioctl_bytes(group, request::GROUP_GET_DEVICE_FD, &mut bytes)?;
    // SAFETY: The kernel has just created this descriptor, and nothing else knows its number.
    unsafe { own(fd) }
}

/// Sends a request without an argument that returns a descriptor.
pub(crate) fn fd_of(fd: impl AsFd, nr: u32) -> Result<OwnedFd, Errno> {
    let fd = ioctl_value(fd, nr, 0)?;
    // SAFETY: The kernel has just created this descriptor, and nothing else knows its number.
    unsafe { own(fd) }
}

/// Sets the state of a device's migration. Returns the descriptor for the data, if there is one.
pub(crate) fn migration_fd(device: impl AsFd, state: MigState) -> Result<Option<OwnedFd>, Errno> {
    const ARGSZ: u32 = argsz::<Feature>() + argsz::<MigState>();
    let header = Feature {
        argsz: ARGSZ,
        flags: VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
    };
    let mut request = Bytes::of(&header).append(&state);
    ioctl_bytes(device, request::DEVICE_FEATURE, request.as_mut())?;
    match request.get::<MigState>(size_of::<Feature>()).data_fd {
        ..0 => Ok(None),
        // SAFETY: The kernel has just created this descriptor, and nothing else knows its number.
        number => unsafe { own(number) }.map(Some),
    }
}

/// Takes ownership of a descriptor.
///
/// # Errors
///
/// `EBADF` if there is no such descriptor.
///
/// # Safety
///
/// The caller owns the descriptor, if there is one.
pub(super) unsafe fn own(number: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: Reading the flags of a descriptor does not change it, regardless of its owner.
    Errno::result(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    // SAFETY: By the contract the caller owns the descriptor, which exists.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Duplicates the descriptor with the given number.
#[cfg(feature = "testing")]
pub(crate) fn duplicate(number: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: Duplicating does not change the original, regardless of its owner.
    let fd = Errno::result(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0) })?;
    // SAFETY: The kernel has just created this descriptor, and nothing else knows its number.
    unsafe { own(fd) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_no_descriptor_are_refused() {
        for number in [-1, -2, i32::MIN, i32::MAX] {
            // SAFETY: There are no such descriptors.
            assert_eq!(unsafe { own(number) }.unwrap_err(), Errno::EBADF);
        }
    }
}
