// SPDX-License-Identifier: GPL-2.0

//! User addresses behind which there is a file of ours.

use kernel::{
    mm::virt::VmaNew,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    }, //
};

use crate::{
    bindings,
    file_ops::{
        FileOperations,
        FileTable, //
    }, //
};

/// Which page of a file of `table` the calling process has mapped at `address`.
///
/// `None` if something else is there, or if the mapping doesn't go on for `size` bytes. Takes the lock
/// of the process's memory for reading.
pub fn mapped_page<T: FileOperations>(
    table: &'static FileTable<T>,
    address: usize,
    size: usize,
) -> Option<usize> {
    let current = kernel::current!();
    let mm = current.mm()?;
    let lock = mm.mmap_read_lock();
    // SAFETY: `mm` is valid; its lock is held.
    let address = unsafe { bindings::kernel_ext_untagged_addr(mm.as_raw(), address) };
    let vma = lock.vma_lookup(address)?;
    if size > vma.end() - address {
        return None;
    }
    // SAFETY: The lock is held, so the area and its file stay.
    let file = unsafe { (*vma.as_ptr()).vm_file };
    if file.is_null() {
        return None;
    }
    // SAFETY: The area holds a reference to its file, whose `f_op` doesn't change.
    if !core::ptr::eq(unsafe { (*file).f_op }, table.as_ptr()) {
        return None;
    }
    // SAFETY: The lock is held, so the area stays as it is.
    let first = unsafe { (*vma.as_ptr()).vm_pgoff };
    let offset = (address & !(PAGE_SIZE - 1)) - vma.start();
    Some(first + (offset >> PAGE_SHIFT))
}

/// The pages of its file that a new mapping covers: the first one, and how many.
pub fn covered_pages(vma: &VmaNew) -> (usize, usize) {
    // SAFETY: The area is being set up by the calling task, so nobody else changes it.
    let first = unsafe { (*vma.as_ptr()).vm_pgoff };
    (first, (vma.end() - vma.start()) >> PAGE_SHIFT)
}
