// SPDX-License-Identifier: GPL-2.0

//! Files on the kernel's anonymous inode, and pseudo file systems that lend them a mapping.
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
    types::ForeignOwnable,
    ThisModule, //
};

use crate::{
    bindings,
    file_ops::{
        Borrowed,
        FileOperations,
        FileTable, //
    }, //
};

/// Makes a read-write file called `[name]` which carries `data` and can be read at any offset.
///
/// On failure `data` is dropped.
pub fn open<T: FileOperations, K>(
    table: &'static FileTable<T, K>,
    name: &'static CStr,
    data: T::Data,
) -> Result<ARef<File>> {
    let any_offset = bindings::KERNEL_EXT_FMODE_PREAD | bindings::KERNEL_EXT_FMODE_PWRITE;
    make(table, name, data, bindings::O_RDWR, any_offset)
}

/// Files whose memory mappings are kept on an inode of a [`PseudoFs`], so that the owner of the inode
/// can zap the mappings of all these files.
pub trait InodeMapped: FileOperations {
    /// The inode for a file that carries `data`.
    ///
    /// The file uses it until `data` is dropped. The lifetime says that `data` keeps the inode for as
    /// long: `data` stays where it is, and nobody gets it mutably, until the file is released.
    fn inode<'a>(data: Borrowed<'a, Self>) -> InodeRef<'a>;
}

/// Makes a file as [`open`] does, with its memory mappings on [`InodeMapped::inode`].
pub fn open_mapped<T: InodeMapped, K>(
    table: &'static FileTable<T, K>,
    name: &'static CStr,
    data: T::Data,
) -> Result<ARef<File>> {
    let file = open(table, name, data)?;
    // SAFETY: By the invariant of `FileTable` the file carries a `T::Data` in foreign form, which is
    // only borrowed until `release`. The file holds the data, so the borrow may last as long.
    let inode = T::inode(unsafe { T::Data::borrow((*file.as_ptr()).private_data) });
    // SAFETY: The file is ours alone. The inode is borrowed from the data, so it outlives every use
    // that the VFS makes of a file's mapping, the last of which precedes `release`.
    unsafe { (*file.as_ptr()).f_mapping = (*inode.0 .0.as_ptr()).i_mapping };
    Ok(file)
}

/// What can be done with a file of [`open_stream`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It can be read.
    Read,
    /// It can be written.
    Write,
}

/// Makes a file called `[name]` which carries `data` and has no offset: what is read or written comes
/// after what was before.
///
/// On failure `data` is dropped.
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
    // SAFETY: Name and table are static. The file takes over `data`, which the table's `release`
    // gives back, so the invariant of `FileTable` holds.
    let file = from_err_ptr(unsafe {
        bindings::anon_inode_getfile_fmode(
            name.as_char_ptr(),
            table.as_ptr(),
            data,
            flags as c_int,
            mode,
        )
    })
    // SAFETY: No file was made, so the data is still ours.
    .inspect_err(|_| drop(unsafe { T::Data::from_foreign(data) }))?;
    // SAFETY: `anon_inode_getfile_fmode` gives a pointer that is not null, with one reference.
    Ok(unsafe { ARef::from_raw(NonNull::new_unchecked(file.cast())) })
}

/// A file system with nothing in it but inodes made by [`PseudoFs::inode`]; keep it as a `static`.
pub struct PseudoFs {
    fs_type: UnsafeCell<bindings::file_system_type>,
    mount: UnsafeCell<*mut bindings::vfsmount>,
    pins: UnsafeCell<c_int>,
}

// SAFETY: `simple_pin_fs` and `simple_release_fs` serialise all that is in the cells.
unsafe impl Sync for PseudoFs {}

impl PseudoFs {
    /// A file system that `/proc/filesystems` never shows: it is not registered.
    pub const fn new<M: PseudoFsMagic>(name: &'static CStr, owner: &ThisModule) -> Self {
        let mut fs_type: bindings::file_system_type = pin_init::zeroed();
        fs_type.name = kernel::str::as_char_ptr_in_const_context(name);
        fs_type.owner = owner.as_ptr();
        fs_type.init_fs_context = Some(init_fs_context_callback::<M>);
        fs_type.kill_sb = Some(bindings::kill_anon_super);
        Self {
            fs_type: UnsafeCell::new(fs_type),
            mount: UnsafeCell::new(core::ptr::null_mut()),
            pins: UnsafeCell::new(0),
        }
    }

    /// Makes an inode; the file system stays mounted while there is one.
    pub fn inode(&'static self) -> Result<Inode> {
        // SAFETY: All three pointers are valid forever; the callee locks.
        to_result(unsafe {
            bindings::simple_pin_fs(self.fs_type.get(), self.mount.get(), self.pins.get())
        })?;
        // SAFETY: The pin taken above keeps the mount in place.
        let inode = unsafe { bindings::alloc_anon_inode((**self.mount.get()).mnt_sb) };
        let inode = from_err_ptr(inode).inspect_err(|_| self.unpin())?;
        // SAFETY: `alloc_anon_inode` does not give a null pointer.
        Ok(Inode(unsafe { NonNull::new_unchecked(inode) }, self))
    }

    fn unpin(&'static self) {
        // SAFETY: Undoes one `simple_pin_fs` of the caller's.
        unsafe { bindings::simple_release_fs(self.mount.get(), self.pins.get()) }
    }
}

/// The number that `statfs(2)` would show for a [`PseudoFs`].
pub trait PseudoFsMagic {
    /// The magic number.
    const MAGIC: c_ulong;
}

/// # Safety
///
/// Called by the VFS with a new file system context.
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

/// An inode of a [`PseudoFs`], whose mapping collects the memory mappings of [`InodeMapped`] files.
///
/// # Invariants
///
/// Owns one reference to the inode and one pin of the file system.
pub struct Inode(NonNull<bindings::inode>, &'static PseudoFs);

// SAFETY: An inode reference may be dropped anywhere.
unsafe impl Send for Inode {}
// SAFETY: There is nothing to mutate through a shared reference.
unsafe impl Sync for Inode {}

impl Inode {
    /// Gives up ownership, for a C structure to hold.
    pub fn into_raw(self) -> *mut bindings::inode {
        core::mem::ManuallyDrop::new(self).0.as_ptr()
    }

    /// Takes ownership back.
    ///
    /// # Safety
    ///
    /// `inode` came from [`Inode::into_raw`] of an inode of `fs`, and is used no more.
    pub unsafe fn from_raw(inode: *mut bindings::inode, fs: &'static PseudoFs) -> Self {
        // SAFETY: By this function's contract.
        Self(unsafe { NonNull::new_unchecked(inode) }, fs)
    }

    /// Borrows an inode that a C structure holds.
    ///
    /// # Safety
    ///
    /// As for [`Inode::from_raw`], but `inode` stays with its owner, who keeps it for `'a`.
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

/// An [`Inode`] that its owner keeps for `'a`.
pub struct InodeRef<'a>(
    core::mem::ManuallyDrop<Inode>,
    core::marker::PhantomData<&'a Inode>,
);
