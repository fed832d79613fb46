// SPDX-License-Identifier: GPL-2.0

//! `VFIO_GROUP_GET_MSI_FD`: a file whose pages stand for MSI banks.
//!
//! A process maps the file into its memory, and then maps that memory for its devices, as it does
//! with any memory. The mapping provides addresses but no access: a process that could write to a
//! doorbell could raise the interrupts of all devices that use the bank. So no memory is ever
//! behind these addresses, and an access raises `SIGBUS`.

use kernel::{
    fs::{
        file::FileDescriptorReservation,
        File, //
    },
    mm::virt::VmaNew,
    prelude::*, //
};

use kernel_ext::{
    anon_file,
    bindings,
    file_ops::{
        FileOperations,
        FileTable, //
    },
    mm::covered_pages, //
};

/// The table of open MSI files.
pub(crate) static FILES: FileTable<MsiFile> = FileTable::anonymous();

/// An MSI file.
pub(crate) struct MsiFile;

/// The number of banks of a file.
pub(crate) struct Banks(u32);

#[vtable]
impl FileOperations for MsiFile {
    type OwnerModule = crate::LocalModule;
    type Data = KBox<Banks>;

    fn ioctl(_banks: &Banks, _file: &File, _cmd: u32, _arg: usize) -> Result<isize> {
        Err(ENOTTY)
    }

    fn mmap(banks: &Banks, vma: &VmaNew) -> Result {
        let (first, count) = covered_pages(vma);
        let end = first.checked_add(count).ok_or(EINVAL)?;
        if end > banks.0 as usize {
            return Err(EINVAL);
        }
        // mremap() could otherwise add pages that don't stand for a bank.
        vma.set_dontexpand();
        Ok(())
    }
}

/// Opens a file of `banks` banks. Returns the file descriptor.
///
/// # Errors
///
/// `ENOTTY` if there are no banks; `EMFILE`, `ENOMEM`.
pub(crate) fn open(banks: u32) -> Result<isize> {
    if banks == 0 {
        return Err(ENOTTY);
    }
    let fd = FileDescriptorReservation::get_unused_fd_flags(bindings::O_CLOEXEC)?;
    let number = fd.reserved_fd();
    let data = KBox::new(Banks(banks), GFP_KERNEL_ACCOUNT)?;
    fd.fd_install(anon_file::open(&FILES, c"[vfio-msi]", data)?);
    Ok(number as isize)
}
