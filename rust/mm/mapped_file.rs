// SPDX-License-Identifier: GPL-2.0

//! Finds user addresses at which one of our files is mapped.

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

/// Returns which page of a file with the operations `table` the calling process has mapped at
/// `address`.
///
/// Returns `None` if anything else is mapped there, or if the VMA ends before `size` bytes. Takes
/// the mmap lock of the process for reading.
pub fn mapped_page<T: FileOperations>(
    table: &'static FileTable<T>,
    address: usize,
    size: usize,
) -> Option<usize> {
    let current = kernel::current!();
    let mm = current.mm()?;
    let lock = mm.mmap_read_lock();
    // SAFETY: `mm` is valid; its mmap lock is held.
    let address = unsafe { bindings::kernel_ext_untagged_addr(mm.as_raw(), address) };
    let vma = lock.vma_lookup(address)?;
    if size > vma.end() - address {
        return None;
    }
    // SAFETY: The lock is held, so the VMA and its file stay valid.
    let file = unsafe { (*vma.as_ptr()).vm_file };
    if file.is_null() {
        return None;
    }
    // SAFETY: The VMA holds a reference to its file, whose `f_op` doesn't change.
    if !core::ptr::eq(unsafe { (*file).f_op }, table.as_ptr()) {
        return None;
    }
    // SAFETY: The lock is held, so the VMA doesn't change.
    let first = unsafe { (*vma.as_ptr()).vm_pgoff };
    let offset = (address & !(PAGE_SIZE - 1)) - vma.start();
    Some(first + (offset >> PAGE_SHIFT))
}

/// Returns the pages of its file that a new VMA covers: the first page, and their number.
pub fn covered_pages(vma: &VmaNew) -> (usize, usize) {
    // SAFETY: The calling task is setting up the VMA, so no other thread changes it.
    let first = unsafe { (*vma.as_ptr()).vm_pgoff };
    (first, (vma.end() - vma.start()) >> PAGE_SHIFT)
}
