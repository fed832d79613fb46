// SPDX-License-Identifier: GPL-2.0

//! User addresses behind which there is no memory but a device's registers.
//!
//! A program may map the BAR of a device it was given into the address space of another device. The
//! frames have no pages that could be pinned; they are found by looking at the process's page
//! tables.

use kernel::{
    mm::MmWithUser,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};

use crate::bindings;

/// Consecutive frames that aren't memory: nothing holds them, and they aren't charged.
///
/// # Invariants
///
/// When it was made, the frames were mapped into the memory of a process which had the right to
/// map them, to write them if `write`, and none of them was memory of the page allocator.
pub struct FrameRun {
    frame: usize,
    count: usize,
    write: bool,
}

impl FrameRun {
    /// The number of the first frame.
    pub fn frame(&self) -> usize {
        self.frame
    }

    /// The number of frames, at least one.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether the process may write there.
    pub fn is_write(&self) -> bool {
        self.write
    }

    /// Finds the frame at address `start` of the calling process, and up to `limit` frames that
    /// follow it there. Not more than those of some entries of the page table, so as not to keep the
    /// lock for long.
    ///
    /// Faults it in as needed, for writing if `write`. Takes the lock of the memory for reading.
    /// Returns `None` if another sort of memory is there.
    ///
    /// # Errors
    ///
    /// `EFAULT` if the frame may not be written, or is ordinary memory; and those of faulting it in.
    pub fn find(start: usize, limit: usize, write: bool) -> Result<Option<Self>> {
        let current = kernel::current!();
        let mm = current.mm().ok_or(ENODEV)?;
        Self::find_remote(mm, start, limit, write)
    }

    /// As [`find`](Self::find), but in `mm`, which needn't be the calling process's.
    ///
    /// # Errors
    ///
    /// As for [`find`](Self::find).
    pub fn find_remote(
        mm: &MmWithUser,
        start: usize,
        limit: usize,
        write: bool,
    ) -> Result<Option<Self>> {
        let _lock = mm.mmap_read_lock();
        // SAFETY: `mm` is valid; its lock is held.
        let start = unsafe { bindings::kernel_ext_untagged_addr(mm.as_raw(), start) };
        loop {
            // SAFETY: `mm` is valid and its lock held, by `_lock`.
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
                // SAFETY: As above; if the lock was dropped it failed.
                Ok(first) => return Ok(Some(unsafe { first.grow(mm, vma, start, limit, write) })),
                // The lock was dropped meanwhile, so look up again.
                Err(e) if e == EAGAIN => continue,
                Err(e) => return Err(e),
            }
        }
    }

    /// Adds the frames that follow, up to `limit` in all, as long as they are consecutive.
    ///
    /// # Safety
    ///
    /// The lock of `mm` is held for reading; `vma` is the one of `start`, where this run was found.
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
            // SAFETY: The lock is held, and the VMA covers the address.
            match unsafe { entry(mm, vma, next, write) } {
                // INVARIANT: They come next in the process's memory, too.
                Ok(run) if run.frame == self.frame + self.count => self.count += run.count,
                // What is wrong there is found when it is asked for. The lock may have been dropped.
                _ => break,
            }
        }
        self.count = self.count.min(limit);
        self
    }
}

/// How many entries of a page table are looked at with the lock held.
const ENTRIES: usize = 512;

/// Finds the frames at `address` that an entry of the page table maps, from there to its end.
///
/// # Errors
///
/// Those of [`follow`]; `EFAULT` if it is ordinary memory.
///
/// # Safety
///
/// As for [`follow`].
unsafe fn entry(
    mm: &MmWithUser,
    vma: *mut bindings::vm_area_struct,
    address: usize,
    write: bool,
) -> Result<FrameRun> {
    // SAFETY: By the contract of this function.
    let (frame, mask) = unsafe { follow(mm, vma, address, write)? };
    // SAFETY: It looks at the frame's number and its `struct page`, if any.
    if unsafe { bindings::kernel_ext_pfn_is_ram(frame) } {
        return Err(EFAULT);
    }
    let end = (frame | (!mask >> PAGE_SHIFT)) + 1;
    // INVARIANT: The page table maps all frames up to `end`; the kind of the first one stands for
    // all, since an entry maps one kind.
    Ok(FrameRun {
        frame,
        count: end - frame,
        write,
    })
}

/// Finds the frame behind `address`, and the mask of the page-table entry that maps it.
///
/// `EAGAIN` says that the lock was dropped and taken again.
///
/// # Safety
///
/// The lock of `mm` is held for reading, and `vma` is the one of `address`.
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
    // SAFETY: The lock is held and `vma` covers the address, by the contract of this function.
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
        // SAFETY: The lock wasn't dropped, hence `vma` is still that of the address.
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
