// SPDX-License-Identifier: GPL-2.0

//! Memory that blocks the threads that access it, by userfaultfd(2).

use super::{
    Memory,
    ioctl::{
        check_pointers,
        own,
        syscall, //
    },
};
use crate::{
    Error,
    PAGE_SIZE, //
};
use linux_raw_sys::{
    general::{
        UFFD_API,
        UFFD_EVENT_PAGEFAULT,
        UFFD_FEATURE_PAGEFAULT_FLAG_WP,
        UFFDIO_REGISTER_MODE_MISSING,
        UFFDIO_REGISTER_MODE_WP,
        uffd_msg,
        uffdio_api,
        uffdio_copy,
        uffdio_range,
        uffdio_register,
        uffdio_writeprotect, //
    },
    ioctl::{
        UFFDIO_API,
        UFFDIO_COPY,
        UFFDIO_REGISTER,
        UFFDIO_UNREGISTER,
        UFFDIO_WRITEPROTECT, //
    },
};
use nix::{
    errno::Errno,
    libc,
    poll::{
        PollFd,
        PollFlags,
        PollTimeout,
        poll, //
    },
    unistd::read, //
};
use std::{
    ops::Range,
    os::fd::{
        AsFd,
        AsRawFd,
        OwnedFd, //
    },
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool,
            Ordering, //
        },
    },
    time::Duration,
};
use zerocopy::{
    FromBytes,
    FromZeros,
    IntoBytes, //
};

/// The crate lacks this constant because its C definition contains a cast.
const UFFDIO_WRITEPROTECT_MODE_WP: u64 = 1;

/// The message about a page fault: `struct uffd_msg`.
#[derive(FromBytes, IntoBytes)]
#[repr(C)]
struct PageFault {
    event: u8,
    reserved: [u8; 7],
    flags: u64,
    address: u64,
    thread: u64,
}

const _: () = assert!(size_of::<PageFault>() == size_of::<uffd_msg>());

/// The accesses that block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultOn {
    /// Reads and writes: the page is missing.
    Access,
    /// Writes: the page is write-protected.
    Write,
}

/// Anonymous memory with pages that can block the threads that access them, including while these
/// threads run in the kernel.
///
/// # Invariants
///
/// `content` is as long as `memory`, and holds the content of the pages that are missing from
/// `memory`. Both are equal until a request is sent.
#[derive(Debug)]
pub struct Userfault {
    memory: Memory,
    content: Memory,
    fd: OwnedFd,
    armed: Mutex<Option<(Range<usize>, FaultOn)>>,
    sent: AtomicBool,
}

impl Userfault {
    /// Allocates `pages` pages of zeroes, none of which blocks accesses.
    ///
    /// # Errors
    ///
    /// `EPERM` without `CAP_SYS_PTRACE`, unless the system allows unprivileged userfaultfd for
    /// faults in the kernel.
    pub fn new(pages: usize) -> Result<Self, Error> {
        let len = pages.saturating_mul(PAGE_SIZE);
        let memory = Memory::anonymous(len)?;
        let content = Memory::anonymous(len)?;
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: The call takes no pointer.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_userfaultfd, flags) })
            .map_err(Error::during("userfaultfd"))?;
        // CAST: Descriptors have 32 bits.
        // SAFETY: The kernel has just created this descriptor, and nothing else knows its number.
        let fd = unsafe { own(fd as i32) }.map_err(Error::during("userfaultfd"))?;
        let mut api = uffdio_api {
            api: UFFD_API.into(),
            features: UFFD_FEATURE_PAGEFAULT_FLAG_WP.into(),
            ioctls: 0,
        };
        // SAFETY: `uffdio_api` is the structure of this request.
        unsafe { control(&fd, UFFDIO_API, &mut api) }.map_err(Error::during("UFFDIO_API"))?;
        // INVARIANT: Both are new and all zeroes.
        Ok(Self {
            memory,
            content,
            fd,
            armed: Mutex::new(None),
            sent: AtomicBool::new(false),
        })
    }

    /// Returns the address as a number.
    pub fn addr(&self) -> u64 {
        self.memory.addr()
    }

    /// Copies bytes into the memory.
    ///
    /// # Panics
    ///
    /// If some pages block accesses.
    #[track_caller]
    pub fn write(&mut self, offset: usize, data: &[u8]) {
        assert!(self.armed().is_none(), "this would stop the calling thread");
        // INVARIANT: Both receive the same bytes.
        self.memory.write(offset, data);
        self.content.write(offset, data);
    }

    /// Returns a copy of a range.
    ///
    /// # Panics
    ///
    /// If some pages block accesses.
    #[track_caller]
    pub fn to_vec(&self, offset: usize, len: usize) -> Vec<u8> {
        assert!(self.armed().is_none(), "this would stop the calling thread");
        self.memory.to_vec(offset, len)
    }

    fn armed(&self) -> MutexGuard<'_, Option<(Range<usize>, FaultOn)>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes some pages block the threads whose access matches `on`.
    ///
    /// # Panics
    ///
    /// If the pages are not in the memory, or some pages block accesses already.
    #[track_caller]
    pub fn arm(&mut self, pages: Range<usize>, on: FaultOn) -> Result<(), Error> {
        let piece = pages.start.saturating_mul(PAGE_SIZE)..pages.end.saturating_mul(PAGE_SIZE);
        assert!(piece.start < piece.end && piece.end <= self.memory.len());
        assert!(self.armed().is_none(), "one at a time");
        let mode = match on {
            FaultOn::Access => {
                self.memory.discard_part(piece.clone())?;
                UFFDIO_REGISTER_MODE_MISSING
            }
            FaultOn::Write => {
                // Only present pages can be write-protected.
                let same = self.content.to_vec(piece.start, piece.len());
                self.memory.write(piece.start, &same);
                UFFDIO_REGISTER_MODE_WP
            }
        };
        let mut register = uffdio_register {
            range: self.range(&piece),
            mode: mode.into(),
            ioctls: 0,
        };
        // SAFETY: `uffdio_register` is the structure of this request, and the range is in `memory`.
        unsafe { control(&self.fd, UFFDIO_REGISTER, &mut register) }
            .map_err(Error::during("UFFDIO_REGISTER"))?;
        *self.armed() = Some((piece.clone(), on));
        if on == FaultOn::Write {
            self.protect(&piece, UFFDIO_WRITEPROTECT_MODE_WP)?;
        }
        Ok(())
    }

    fn address(&self, offset: usize) -> u64 {
        self.memory.addr().saturating_add(offset as u64)
    }

    fn range(&self, piece: &Range<usize>) -> uffdio_range {
        uffdio_range {
            start: self.address(piece.start),
            len: piece.len() as u64,
        }
    }

    fn protect(&self, piece: &Range<usize>, mode: u64) -> Result<(), Error> {
        let mut protect = uffdio_writeprotect {
            range: self.range(piece),
            mode,
        };
        // SAFETY: `uffdio_writeprotect` is the structure of this request, and the range is in
        // `memory`.
        unsafe { control(&self.fd, UFFDIO_WRITEPROTECT, &mut protect) }
            .map_err(Error::during("UFFDIO_WRITEPROTECT"))
    }

    /// Waits until a thread is blocked. Returns the offset of the page, or `None` on timeout.
    pub fn wait(&self, timeout: Duration) -> Result<Option<usize>, Error> {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, timeout).map_err(Error::during("poll"))?;
        let mut message = PageFault::new_zeroed();
        match read(&self.fd, message.as_mut_bytes()) {
            Err(Errno::EAGAIN) => return Ok(None),
            other => other.map_err(Error::during("read of userfaultfd"))?,
        };
        // Page faults are the only event that was requested.
        let offset = message.address.checked_sub(self.memory.addr());
        match offset {
            Some(offset) if u32::from(message.event) == UFFD_EVENT_PAGEFAULT => {
                Ok(Some(offset as usize))
            }
            _ => Err(Error::malformed("read of userfaultfd")),
        }
    }

    /// Resumes the blocked threads, and blocks no others.
    pub fn release(&self) -> Result<(), Error> {
        let Some((piece, on)) = self.armed().take() else {
            return Ok(());
        };
        match on {
            FaultOn::Access => {
                let mut copy = uffdio_copy {
                    dst: self.address(piece.start),
                    src: self.content.addr().saturating_add(piece.start as u64),
                    len: piece.len() as u64,
                    mode: 0,
                    copy: 0,
                };
                // SAFETY: `uffdio_copy` is the structure of this request. Both ranges are memory of
                // this object without references into it, and by the invariant both contain the
                // piece.
                unsafe { control(&self.fd, UFFDIO_COPY, &mut copy) }
                    .map_err(Error::during("UFFDIO_COPY"))?;
            }
            FaultOn::Write => self.protect(&piece, 0)?,
        }
        let mut range = self.range(&piece);
        // SAFETY: `uffdio_range` is the structure of this request, and the range is in `memory`.
        unsafe { control(&self.fd, UFFDIO_UNREGISTER, &mut range) }
            .map_err(Error::during("UFFDIO_UNREGISTER"))
    }

    /// Sends a request with the address of a byte of the memory. The request blocks when the kernel
    /// accesses an armed page.
    ///
    /// # Panics
    ///
    /// If a request was sent before, and where [`raw::at`](crate::raw::at) panics.
    #[track_caller]
    pub fn request(&self, fd: impl AsFd, nr: u32, offset: usize) -> Result<i32, Errno> {
        self.send(offset);
        // By the invariant the kernel will find this content: only `write` changes it, and `write`
        // needs an exclusive reference.
        let lent = check_pointers(nr, &self.content, offset);
        let result = syscall(fd, nr, self.address(offset));
        lent.settle(nr, result);
        result
    }

    /// Reads the next entries of a directory into the memory from `offset` to its end, by
    /// getdents64(2). Blocks when the kernel accesses an armed page. Returns the number of bytes
    /// read.
    ///
    /// # Panics
    ///
    /// If a request was sent before, or if `offset` is outside of the memory.
    #[track_caller]
    pub fn read_directory(&self, directory: impl AsFd, offset: usize) -> Result<usize, Errno> {
        self.send(offset);
        // SAFETY: The kernel changes only the rest of `memory`, to which there are no references.
        let count = unsafe {
            libc::syscall(
                libc::SYS_getdents64,
                directory.as_fd().as_raw_fd(),
                // CAST: It is an address of this process.
                self.address(offset) as usize,
                self.memory.len().saturating_sub(offset),
            )
        };
        Errno::result(count).map(|count| count as usize)
    }

    /// Notes that the kernel may change the memory.
    #[track_caller]
    fn send(&self, offset: usize) {
        assert!(
            !self.sent.swap(true, Ordering::Relaxed),
            "the kernel may have changed the addresses of a second request"
        );
        assert!(
            offset <= self.memory.len(),
            "the request is outside of the memory"
        );
    }
}

/// Sends a request to a userfaultfd.
///
/// # Safety
///
/// `T` is the structure of request `nr`, and the caller owns the memory that the request changes.
unsafe fn control<T>(fd: &OwnedFd, nr: u32, arg: &mut T) -> Result<(), Errno> {
    // SAFETY: The caller guarantees it by the contract of this function.
    let ret = unsafe {
        libc::ioctl(
            fd.as_raw_fd(),
            libc::c_ulong::from(nr),
            std::ptr::from_mut(arg),
        )
    };
    Errno::result(ret).map(drop)
}
