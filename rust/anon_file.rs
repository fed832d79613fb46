// SPDX-License-Identifier: GPL-2.0

//! Anonymous inode files, and pseudo file systems whose inodes collect the memory mappings of such
//! files.
//!
//! C headers: [`include/linux/anon_inodes.h`](srctree/include/linux/anon_inodes.h),
//! [`include/linux/pseudo_fs.h`](srctree/include/linux/pseudo_fs.h)

use core::{
    cell::UnsafeCell,
    ptr::NonNull, //
};

use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    ffi::{
        c_int,
        c_ulong, //
    },
    fs::File,
    prelude::*,
    sync::aref::ARef,
    types::ForeignOwnable, //
};

use crate::{
    bindings,
    compat::{
        this_module,
        ModuleMetadata, //
    },
    file_ops::{
        Borrowed,
        FileOperations,
        FileTable, //
    }, //
};

/// The file can be read and written at any offset.
const ANY_OFFSET: bindings::fmode_t =
    bindings::KERNEL_EXT_FMODE_PREAD | bindings::KERNEL_EXT_FMODE_PWRITE;

/// Creates a read-write file called `[name]` that holds `data`. It can be read and written at any
/// offset.
///
/// Drops `data` on failure.
pub fn open<T: FileOperations, K>(
    table: &'static FileTable<T, K>,
    name: &'static CStr,
    data: T::Data,
) -> Result<ARef<File>> {
    make(table, name, data, bindings::O_RDWR, ANY_OFFSET)
}

/// Files whose memory mappings belong to an inode of a [`PseudoFs`], so that the owner of the inode
/// can zap the mappings of all these files.
pub trait InodeMapped: FileOperations {
    /// Returns the inode for a file that holds `data`.
    ///
    /// The file uses the inode until `data` is dropped. The lifetime expresses that `data` keeps
    /// the inode that long: `data` isn't moved or mutably borrowed until the file is released.
    fn inode<'a>(data: Borrowed<'a, Self>) -> InodeRef<'a>;
}

/// Creates a file as [`open`] does. Its memory mappings belong to the inode of
/// [`InodeMapped::inode`].
pub fn open_mapped<T: InodeMapped, K>(
    table: &'static FileTable<T, K>,
    name: &'static CStr,
    data: T::Data,
) -> Result<ARef<File>> {
    let file = make(table, name, data, bindings::O_RDWR, ANY_OFFSET)?;
    // SAFETY: By the invariant of `FileTable` the file holds a `T::Data` in foreign form, and only
    // this function has the file.
    unsafe { map_through_inode::<T>(file.as_ptr()) };
    Ok(file)
}

/// Makes the memory mappings of `file` belong to the inode of [`InodeMapped::inode`].
///
/// # Safety
///
/// `file` holds a `T::Data` in foreign form, and only the caller uses the file yet.
pub(crate) unsafe fn map_through_inode<T: InodeMapped>(file: *mut bindings::file) {
    // SAFETY: By this function's contract. The data is only borrowed until `release`, and the file
    // owns it, so the borrow may last as long.
    let inode = T::inode(unsafe { T::Data::borrow((*file).private_data) });
    // SAFETY: Only the caller uses the file. The inode is borrowed from the data, so it outlives
    // every use that the VFS makes of a file's mapping, the last of which precedes `release`.
    unsafe { (*file).f_mapping = (*inode.0 .0.as_ptr()).i_mapping };
}

/// The direction of a file of [`open_stream`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The file can be read.
    Read,
    /// The file can be written.
    Write,
}

/// Creates a file called `[name]` that holds `data` and has no offset: each read or write continues
/// where the previous one ended.
///
/// Drops `data` on failure.
pub fn open_stream<T: FileOperations, K>(
    table: &'static FileTable<T, K>,
    name: &'static CStr,
    data: T::Data,
    direction: Direction,
) -> Result<ARef<File>> {
    let flags = match direction {
        Direction::Read => bindings::O_RDONLY,
        Direction::Write => bindings::O_WRONLY,
    };
    make(table, name, data, flags, 0)
}

fn make<T: FileOperations, K>(
    table: &'static FileTable<T, K>,
    name: &'static CStr,
    data: T::Data,
    flags: u32,
    mode: bindings::fmode_t,
) -> Result<ARef<File>> {
    let data = data.into_foreign();
    // SAFETY: Name and table are static. The file takes ownership of `data`, which the table's
    // `release` takes back, so the invariant of `FileTable` holds.
    let file = from_err_ptr(unsafe {
        bindings::anon_inode_getfile_fmode(
            name.as_char_ptr(),
            table.as_ptr(),
            data,
            flags as c_int,
            mode,
        )
    })
    // SAFETY: No file was created, so this function still owns the data.
    .inspect_err(|_| drop(unsafe { T::Data::from_foreign(data) }))?;
    // SAFETY: `anon_inode_getfile_fmode` returns a non-null pointer with one reference.
    Ok(unsafe { ARef::from_raw(NonNull::new_unchecked(file.cast())) })
}

/// A file system that contains only the inodes of [`PseudoFs::inode`]. Keep it as a `static`.
pub struct PseudoFs {
    fs_type: UnsafeCell<bindings::file_system_type>,
    mount: UnsafeCell<*mut bindings::vfsmount>,
    pins: UnsafeCell<c_int>,
}

// SAFETY: `simple_pin_fs` and `simple_release_fs` serialise all accesses to the cells.
unsafe impl Sync for PseudoFs {}

impl PseudoFs {
    /// Returns a file system. It isn't registered, so `/proc/filesystems` never shows it.
    pub const fn new<M: PseudoFsMagic>(name: &'static CStr) -> Self {
        let mut fs_type: bindings::file_system_type = pin_init::zeroed();
        fs_type.name = kernel::str::as_char_ptr_in_const_context(name);
        fs_type.owner = this_module::<M::OwnerModule>().as_ptr();
        fs_type.init_fs_context = Some(init_fs_context_callback::<M>);
        fs_type.kill_sb = Some(bindings::kill_anon_super);
        Self {
            fs_type: UnsafeCell::new(fs_type),
            mount: UnsafeCell::new(core::ptr::null_mut()),
            pins: UnsafeCell::new(0),
        }
    }

    /// Allocates an inode. The file system stays mounted while it has an inode.
    pub fn inode(&'static self) -> Result<Inode> {
        // SAFETY: All three pointers are valid forever, and the callee locks.
        to_result(unsafe {
            bindings::simple_pin_fs(self.fs_type.get(), self.mount.get(), self.pins.get())
        })?;
        // SAFETY: The pin taken above keeps the mount.
        let inode = unsafe { bindings::alloc_anon_inode((**self.mount.get()).mnt_sb) };
        let inode = from_err_ptr(inode).inspect_err(|_| self.unpin())?;
        // SAFETY: `alloc_anon_inode` doesn't return a null pointer.
        Ok(Inode(unsafe { NonNull::new_unchecked(inode) }, self))
    }

    fn unpin(&'static self) {
        // SAFETY: This reverts one `simple_pin_fs` of the caller.
        unsafe { bindings::simple_release_fs(self.mount.get(), self.pins.get()) }
    }
}

/// The magic number that `statfs(2)` would report for a [`PseudoFs`].
pub trait PseudoFsMagic {
    /// The module that implements the trait: `crate::LocalModule`.
    type OwnerModule: ModuleMetadata;

    /// The magic number.
    const MAGIC: c_ulong;
}

/// # Safety
///
/// Only the VFS calls this function, with a new file system context.
unsafe extern "C" fn init_fs_context_callback<M: PseudoFsMagic>(
    fc: *mut bindings::fs_context,
) -> c_int {
    // SAFETY: By this function's contract.
    if unsafe { bindings::init_pseudo(fc, M::MAGIC) }.is_null() {
        ENOMEM.to_errno()
    } else {
        0
    }
}

/// An inode of a [`PseudoFs`]. Its mapping collects the memory mappings of [`InodeMapped`] files.
///
/// # Invariants
///
/// This value owns one reference to the inode and one pin of the file system.
pub struct Inode(NonNull<bindings::inode>, &'static PseudoFs);

// SAFETY: An inode reference may be dropped in any thread.
unsafe impl Send for Inode {}
// SAFETY: Nothing can be changed through a shared reference.
unsafe impl Sync for Inode {}

impl Inode {
    /// Gives up ownership, so that a C structure can hold the inode.
    pub fn into_raw(self) -> *mut bindings::inode {
        core::mem::ManuallyDrop::new(self).0.as_ptr()
    }

    /// Takes ownership back.
    ///
    /// # Safety
    ///
    /// `inode` was returned by [`Inode::into_raw`] for an inode of `fs`, and the caller doesn't use
    /// it again.
    pub unsafe fn from_raw(inode: *mut bindings::inode, fs: &'static PseudoFs) -> Self {
        // SAFETY: By this function's contract.
        Self(unsafe { NonNull::new_unchecked(inode) }, fs)
    }

    /// Borrows an inode that a C structure holds.
    ///
    /// # Safety
    ///
    /// As for [`Inode::from_raw`], but the owner of `inode` keeps it for `'a`.
    pub unsafe fn borrow_raw<'a>(
        inode: &'a *mut bindings::inode,
        fs: &'static PseudoFs,
    ) -> InodeRef<'a> {
        // SAFETY: By this function's contract.
        let inode = unsafe { Self::from_raw(*inode, fs) };
        InodeRef(
            core::mem::ManuallyDrop::new(inode),
            core::marker::PhantomData,
        )
    }
}

impl Drop for Inode {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::iput(self.0.as_ptr()) };
        self.1.unpin();
    }
}

/// An [`Inode`] that is borrowed from its owner for `'a`.
pub struct InodeRef<'a>(
    core::mem::ManuallyDrop<Inode>,
    core::marker::PhantomData<&'a Inode>,
);
