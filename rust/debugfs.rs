// SPDX-License-Identifier: GPL-2.0

//! Directories and read-only files in debugfs.
//!
//! A file of `kernel::debugfs` has operations without an owner: the module that they belong to can
//! be unloaded while the file is open, and closing the file then uses freed memory. An open file of
//! this module keeps the owner of its [`Contents`] loaded.
//!
//! C header: [`include/linux/debugfs.h`](srctree/include/linux/debugfs.h)

use core::{
    marker::PhantomData,
    ptr, //
};

#[cfg(CONFIG_KUNIT)]
use kernel::error::from_err_ptr;
use kernel::{
    ffi::{
        c_int,
        c_void, //
    },
    fmt,
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    sync::Arc,
    types::ForeignOwnable, //
};

use crate::{
    bindings,
    compat::{
        this_module,
        ModuleMetadata, //
    }, //
};

/// The access mode of files. Only root can read them.
const MODE: bindings::umode_t = 0o400;

/// A directory or a file. Dropping it removes it.
///
/// # Invariants
///
/// `dentry` is an error pointer, or a directory or file that only this value removes.
struct Entry {
    dentry: *mut bindings::dentry,
    /// The directory that it is in. Removing that first would remove this, too.
    _parent: Option<Arc<Entry>>,
}

// SAFETY: debugfs does its own locking.
unsafe impl Send for Entry {}
// SAFETY: As above.
unsafe impl Sync for Entry {}

impl Drop for Entry {
    fn drop(&mut self) {
        // SAFETY: By the type invariant. The function accepts error pointers.
        unsafe { bindings::kernel_ext_debugfs_remove(self.dentry) };
    }
}

/// A directory. It is removed after the last clone, the directories and the files in it are
/// dropped.
///
/// If debugfs cannot create a directory or a file, it is missing, which is no error: no other code
/// depends on it.
#[derive(Clone)]
pub struct Dir(Arc<Entry>);

impl Dir {
    /// Creates a directory at the root of debugfs.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(name: &CStr) -> Result<Self> {
        Self::create(name, None)
    }

    /// Creates a directory in this one.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn subdir(&self, name: &CStr) -> Result<Self> {
        Self::create(name, Some(self.0.clone()))
    }

    fn create(name: &CStr, parent: Option<Arc<Entry>>) -> Result<Self> {
        let folder = parent
            .as_ref()
            .map_or(ptr::null_mut(), |parent| parent.dentry);
        // SAFETY: `folder` is null, an error pointer, or a directory that `parent` keeps.
        let dentry = unsafe { bindings::kernel_ext_debugfs_create_dir(name.as_char_ptr(), folder) };
        // INVARIANT: The directory was just created, or it is an error pointer.
        let entry = Entry {
            dentry,
            _parent: parent,
        };
        Ok(Self(Arc::new(entry, GFP_KERNEL)?))
    }

    /// Creates a file that shows `data`.
    pub fn file<C: Contents>(&self, name: &CStr, data: C::Data) -> File<C> {
        let data = data.into_foreign();
        // SAFETY: `self` keeps the directory. The operations are static. They borrow `data`, which
        // the `File` keeps until it has removed the file.
        let dentry = unsafe {
            bindings::kernel_ext_debugfs_create_file(
                name.as_char_ptr(),
                MODE,
                self.0.dentry,
                data,
                Operations::<C>::TABLE,
            )
        };
        // INVARIANT: The file was just created, or it is an error pointer.
        let entry = Entry {
            dentry,
            _parent: Some(self.0.clone()),
        };
        // INVARIANT: `data` is from `into_foreign`.
        File {
            entry: Some(entry),
            data,
            _contents: PhantomData,
        }
    }
}

/// The contents of a file.
#[vtable]
pub trait Contents: 'static {
    /// The module that implements the trait: `crate::LocalModule`.
    type OwnerModule: ModuleMetadata;

    /// The data that the file shows.
    type Data: ForeignOwnable + Send + Sync;

    /// Writes the contents. May be called several times for one `read(2)`.
    fn show(
        data: <Self::Data as ForeignOwnable>::Borrowed<'_>,
        f: &mut fmt::Formatter<'_>,
    ) -> fmt::Result;
}

/// A file. Dropping it removes the file and waits for calls of [`Contents::show`].
///
/// A process that has the file open keeps the module of `C` loaded, and reads `EIO` after the file
/// was removed.
///
/// # Invariants
///
/// `data` is the foreign form of a `C::Data`, which is only borrowed until this value is dropped.
pub struct File<C: Contents> {
    /// `None` while the file is being dropped.
    entry: Option<Entry>,
    data: *mut c_void,
    _contents: PhantomData<C>,
}

impl<C: Contents> File<C> {
    /// Returns the data that the file shows.
    pub fn data(&self) -> <C::Data as ForeignOwnable>::Borrowed<'_> {
        // SAFETY: By the type invariant, which bounds the borrow by `self`.
        unsafe { C::Data::borrow(self.data) }
    }

    /// Returns whether debugfs could create the file.
    #[cfg(CONFIG_KUNIT)]
    pub fn exists(&self) -> bool {
        let entry = self.entry.as_ref();
        entry.is_some_and(|entry| from_err_ptr(entry.dentry).is_ok())
    }
}

// SAFETY: A file owns its data, which is `Send`.
unsafe impl<C: Contents> Send for File<C> {}
// SAFETY: A file borrows its data, which is `Sync`.
unsafe impl<C: Contents> Sync for File<C> {}

impl<C: Contents> Drop for File<C> {
    fn drop(&mut self) {
        drop(self.entry.take());
        // SAFETY: By the type invariant. The file is removed, and its removal has waited for the
        // callbacks that borrow the data.
        drop(unsafe { C::Data::from_foreign(self.data) });
    }
}

/// The operations of the files that show `C`.
struct Operations<C>(PhantomData<C>);

impl<C: Contents> Operations<C> {
    const TABLE: &'static bindings::file_operations = &bindings::file_operations {
        owner: this_module::<C::OwnerModule>().as_ptr(),
        open: Some(Self::open),
        read: Some(bindings::seq_read),
        llseek: Some(bindings::seq_lseek),
        release: Some(bindings::single_release),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// Only debugfs calls this, for a file that [`Dir::file`] created with these operations.
    unsafe extern "C" fn open(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: By this function's contract. `show` gets the data of the file.
        unsafe { bindings::single_open(file, Some(Self::show), (*inode).i_private) }
    }

    /// # Safety
    ///
    /// `m` is the `seq_file` of a file that [`Self::open`] opened and that is not removed.
    unsafe extern "C" fn show(m: *mut bindings::seq_file, _position: *mut c_void) -> c_int {
        // SAFETY: By this function's contract.
        // INVARIANT: `private` is the data that was passed to `single_open`.
        let (m, shown) = unsafe { (SeqFile::from_raw(m), Shown::<C>((*m).private, PhantomData)) };
        seq_print!(m, "{}", shown);
        0
    }
}

/// Formats the contents of a file.
///
/// # Invariants
///
/// The pointer is the foreign form of a `C::Data` that is only borrowed while this value exists.
struct Shown<C>(*mut c_void, PhantomData<C>);

impl<C: Contents> fmt::Display for Shown<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: By the type invariant.
        C::show(unsafe { C::Data::borrow(self.0) }, f)
    }
}
