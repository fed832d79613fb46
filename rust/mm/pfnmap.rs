// SPDX-License-Identifier: GPL-2.0

//! Finds user addresses that map MMIO instead of memory.
//!
//! A process may map the BAR of one of its devices into the address space of another device. The
//! frames (pfns) of a BAR have no pages that could be pinned, so they are looked up in the page
//! tables of the process.

use kernel::{
    mm::MmWithUser,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};

use crate::bindings;

/// Consecutive frames that aren't memory. No reference to them is held, and they aren't charged.
///
/// # Invariants
///
/// When the value was created, the frames were mapped by a process that had the right to map them,
/// and to write to them if `write`. None of them was memory of the page allocator.
pub struct FrameRun {
    frame: usize,
    count: usize,
    write: bool,
}

impl FrameRun {
    /// Returns the number of the first frame.
    pub fn frame(&self) -> usize {
        self.frame
    }

    /// Returns the number of frames, at least one.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns whether the process may write to the frames.
    pub fn is_write(&self) -> bool {
        self.write
    }

    /// Finds the frame at address `start` of the calling process, and the consecutive frames that
    /// follow it, up to `limit` frames in total. One call reads a limited number of page table
    /// entries, so that it doesn't hold the mmap lock for long.
    ///
    /// Faults in the first frame if needed, for writing if `write`. Takes the mmap lock for
    /// reading. Returns `None` if the address isn't in a `VM_PFNMAP` area.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the caller is a kernel thread; `EFAULT` if the frame may not be written, or is
    /// ordinary memory; the errors of faulting in the frame.
    pub fn find(start: usize, limit: usize, write: bool) -> Result<Option<Self>> {
        let current = kernel::current!();
        let mm = current.mm().ok_or(ENODEV)?;
        Self::find_remote(mm, start, limit, write)
    }

    /// Like [`find`](Self::find), but in `mm`, which may belong to another process.
    ///
    /// # Errors
    ///
    /// Those of [`find`](Self::find), except `ENODEV`.
    pub fn find_remote(
        mm: &MmWithUser,
        start: usize,
        limit: usize,
        write: bool,
    ) -> Result<Option<Self>> {
        let _lock = mm.mmap_read_lock();
        // SAFETY: `mm` is valid; its mmap lock is held.
        let start = unsafe { bindings::kernel_ext_untagged_addr(mm.as_raw(), start) };
        loop {
            // SAFETY: `mm` is valid and `_lock` holds its mmap lock.
            let vma = unsafe { bindings::vma_lookup(mm.as_raw(), start) };
            if vma.is_null() {
                return Ok(None);
            }
            // SAFETY: The VMA is valid while the lock is held.
            let flags = unsafe { (*vma).__bindgen_anon_2.vm_flags };
            if flags & bindings::VM_PFNMAP == 0 {
                return Ok(None);
            }
            // SAFETY: The lock is held and `vma` was looked up for `start` under it.
            match unsafe { entry(mm, vma, start, write) } {
                // SAFETY: As above; `entry` fails if the lock was dropped.
                Ok(first) => return Ok(Some(unsafe { first.grow(mm, vma, start, limit, write) })),
                // The lock was dropped, so look up the VMA again.
                Err(e) if e == EAGAIN => continue,
                Err(e) => return Err(e),
            }
        }
    }

    /// Adds the frames that follow, as long as they are consecutive, up to `limit` frames in total.
    ///
    /// # Safety
    ///
    /// The mmap lock of `mm` is held for reading; `vma` contains `start`, the address at which this
    /// run was found.
    unsafe fn grow(
        mut self,
        mm: &MmWithUser,
        vma: *mut bindings::vm_area_struct,
        start: usize,
        limit: usize,
        write: bool,
    ) -> Self {
        // SAFETY: The VMA is valid while the lock is held.
        let end = unsafe { (*vma).__bindgen_anon_1.__bindgen_anon_1.vm_end };
        for _ in 1..ENTRIES {
            let next = start + self.count * PAGE_SIZE;
            if self.count >= limit || next >= end {
                break;
            }
            // SAFETY: The lock is held, and the VMA contains the address.
            match unsafe { entry(mm, vma, next, write) } {
                // INVARIANT: The frames are also consecutive in the address space of the process.
                Ok(run) if run.frame == self.frame + self.count => self.count += run.count,
                // A request for that address will return its error. The lock may have been dropped.
                _ => break,
            }
        }
        self.count = self.count.min(limit);
        self
    }
}

/// Number of page table entries that are read with the lock held.
const ENTRIES: usize = 512;

/// Finds the frames that the page table entry of `address` maps, from `address` to the end of the
/// entry.
///
/// # Errors
///
/// Those of [`follow`]; `EFAULT` if the frame is ordinary memory.
///
/// # Safety
///
/// The same as for [`follow`].
unsafe fn entry(
    mm: &MmWithUser,
    vma: *mut bindings::vm_area_struct,
    address: usize,
    write: bool,
) -> Result<FrameRun> {
    // SAFETY: By the contract of this function.
    let (frame, mask) = unsafe { follow(mm, vma, address, write)? };
    // SAFETY: The function reads only the frame's number and its `struct page`, if it has one.
    if unsafe { bindings::kernel_ext_pfn_is_ram(frame) } {
        return Err(EFAULT);
    }
    let end = (frame | (!mask >> PAGE_SHIFT)) + 1;
    // INVARIANT: The page table maps all frames up to `end`. An entry maps frames of one kind, so
    // the check of the first frame applies to all of them.
    Ok(FrameRun {
        frame,
        count: end - frame,
        write,
    })
}

/// Finds the frame at `address`, and the address mask of the page table entry that maps it.
///
/// Returns `EAGAIN` if the lock was dropped and taken again.
///
/// # Safety
///
/// The mmap lock of `mm` is held for reading, and `vma` contains `address`.
unsafe fn follow(
    mm: &MmWithUser,
    vma: *mut bindings::vm_area_struct,
    address: usize,
    write: bool,
) -> Result<(usize, usize)> {
    let mut args = bindings::follow_pfnmap_args {
        vma,
        address: address & !(PAGE_SIZE - 1),
        ..Default::default()
    };
    // SAFETY: The lock is held and `vma` contains the address, by the contract of this function.
    if unsafe { bindings::follow_pfnmap_start(&mut args) } != 0 {
        let mut flags = bindings::fault_flag_FAULT_FLAG_REMOTE;
        if write {
            flags |= bindings::fault_flag_FAULT_FLAG_WRITE;
        }
        let mut unlocked = false;
        // SAFETY: The lock is held, by the contract of this function.
        let ret = unsafe { bindings::fixup_user_fault(mm.as_raw(), address, flags, &mut unlocked) };
        if unlocked {
            return Err(EAGAIN);
        }
        kernel::error::to_result(ret)?;
        // SAFETY: The lock wasn't dropped, so `vma` still contains the address.
        kernel::error::to_result(unsafe { bindings::follow_pfnmap_start(&mut args) })?;
    }
    let found = if write && !args.writable {
        Err(EFAULT)
    } else {
        Ok((args.pfn, args.addr_mask))
    };
    // SAFETY: `follow_pfnmap_start` succeeded with these arguments.
    unsafe { bindings::follow_pfnmap_end(&mut args) };
    found
}
