// SPDX-License-Identifier: GPL-2.0

//! File operations for misc devices with files of their own, character devices and anonymous
//! inodes.
//!
//! The `kernel` crate supports file operations only for misc devices. VFIO needs them for three
//! kinds of files: a misc device, character devices that are created at run time, and anonymous
//! inodes. The trait [`FileOperations`] serves all three. A [`FileTable`] is a `static` that
//! identifies the files of one kind, in the same way as C code compares `f_op`.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h)

use core::marker::PhantomData;

use kernel::{
    error::{
        from_result,
        VTABLE_DEFAULT_ERROR, //
    },
    ffi::{
        c_char,
        c_int,
        c_long,
        c_uint,
        c_ulong, //
    },
    fs::{
        File,
        LocalFile, //
    },
    mm::virt::VmaNew,
    prelude::*,
    seq_file::SeqFile,
    sync::poll::PollTable,
    types::ForeignOwnable,
    uaccess::UserPtr, //
};

use crate::{
    anon_file::{
        map_through_inode,
        InodeMapped, //
    },
    bindings,
    chardev::NodeInner,
    compat::{
        this_module,
        ModuleMetadata, //
    }, //
};

/// The borrowed form of [`FileOperations::Data`] while the file is open.
pub type Borrowed<'a, T> = <<T as FileOperations>::Data as ForeignOwnable>::Borrowed<'a>;

/// The operations of an open file that holds a value of type [`FileOperations::Data`].
///
/// The value is dropped together with the last reference to the file.
#[vtable]
pub trait FileOperations: Sized + 'static {
    /// The module that implements the trait: `crate::LocalModule`.
    type OwnerModule: ModuleMetadata;

    /// The data that an open file holds.
    type Data: ForeignOwnable + Send + Sync;

    /// Handles `ioctl(2)` of native and of 32-bit callers. Pointers of the latter are widened.
    fn ioctl(data: Borrowed<'_, Self>, file: &File, cmd: u32, arg: usize) -> Result<isize>;

    /// Handles `read(2)` and `pread(2)`. Advances `pos` and returns the number of bytes read.
    fn read(
        _data: Borrowed<'_, Self>,
        _buf: UserPtr,
        _count: usize,
        _pos: &mut i64,
    ) -> Result<usize> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Handles `write(2)` and `pwrite(2)`. Advances `pos` and returns the number of bytes written.
    fn write(
        _data: Borrowed<'_, Self>,
        _buf: UserPtr,
        _count: usize,
        _pos: &mut i64,
    ) -> Result<usize> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Handles `mmap(2)`. The caller holds the mmap lock for writing.
    fn mmap(_data: Borrowed<'_, Self>, _vma: &VmaNew) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Handles `poll(2)`. Returns the [`poll`] bits that are set now, and registers the wait queues
    /// with `table`.
    fn poll(_data: Borrowed<'_, Self>, _file: &File, _table: PollTable<'_>) -> u32 {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Prints lines for `/proc/PID/fdinfo/FD`.
    fn show_fdinfo(_data: Borrowed<'_, Self>, _m: &SeqFile) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// The bits that [`FileOperations::poll`] returns.
pub mod poll {
    use crate::bindings;

    /// There is data to read, or the end of the data.
    pub const READABLE: u32 = bindings::POLLIN | bindings::POLLRDNORM;
    /// No more data will arrive.
    pub const HANG_UP: u32 = bindings::POLLRDHUP;
}

/// Files that are created by opening a misc device. Each has its own value.
pub trait OpenMisc: FileOperations {
    /// Returns the value of the new file.
    fn open() -> Result<Self::Data>;
}

/// Files that are created by opening a character device of [`crate::chardev`].
pub trait OpenNode: FileOperations {
    /// The value of the character device itself.
    type Node: Send + Sync + 'static;

    /// Returns the value of the new file.
    fn open(node: &Self::Node) -> Result<Self::Data>;
}

/// Files that are created by opening a number of [`crate::chardev::NumberedNodes`].
pub trait OpenNumber: InodeMapped {
    /// Returns the value of the new file. `minor` is the number's position in its region, which
    /// starts at a multiple of [`crate::chardev::MINORS`].
    fn open(minor: u32) -> Result<Self::Data>;
}

/// A table of files that are only created by kernel code, together with their value.
pub enum Anonymous {}

/// A table of files that are also created by `open(2)` of a misc device.
pub enum Misc {}

/// A table of files that are also created by `open(2)` of a character device.
pub enum Node {}

/// A table of files that are also created by `open(2)` of one of many numbers.
pub enum Numbered {}

/// A `struct file_operations` for `T`. Keep exactly one, as a `static`.
///
/// `K` is the kind of device that can be opened to get such a file: [`Anonymous`], [`Misc`],
/// [`Node`] or [`Numbered`]. A device accepts only a table of its own kind. The `open` of another
/// kind would leave the file without a value, or would look for the value in the wrong place.
///
/// # Invariants
///
/// The `private_data` of a file whose `f_op` is this table is the foreign form of a `T::Data`, from
/// the end of its `open` (or its creation) until `release`.
#[repr(transparent)]
pub struct FileTable<T, K = Anonymous>(bindings::file_operations, PhantomData<(T, K)>);

// SAFETY: The table is never written after its creation.
unsafe impl<T, K> Sync for FileTable<T, K> {}

impl<T: FileOperations> FileTable<T> {
    /// Returns the table of files that are created together with their value.
    pub const fn anonymous() -> Self {
        Self(VTable::<T>::BASE, PhantomData)
    }
}

impl<T: FileOperations, K> FileTable<T, K> {
    /// Returns the data of `file`, if it is a file of this table.
    pub fn data<'a>(&'static self, file: &'a LocalFile) -> Option<Borrowed<'a, T>> {
        // SAFETY: `file` is valid; `f_op` does not change once the file is visible.
        let f_op = unsafe { (*file.as_ptr()).f_op };
        if !core::ptr::eq(f_op, &self.0) {
            return None;
        }
        // SAFETY: By the type invariant this is a `T::Data` in foreign form. The reference to the
        // file defers `release` for `'a`, and the data isn't borrowed mutably.
        Some(unsafe { T::Data::borrow((*file.as_ptr()).private_data) })
    }

    pub(crate) fn as_ptr(&'static self) -> *const bindings::file_operations {
        &self.0
    }
}

impl<T: OpenMisc> FileTable<T, Misc> {
    /// Returns the table of files that are created by opening a misc device.
    pub const fn misc() -> Self {
        let mut table = VTable::<T>::BASE;
        table.open = Some(open_misc_callback::<T>);
        Self(table, PhantomData)
    }
}

impl<T: OpenNode> FileTable<T, Node> {
    /// Returns the table of files that are created by opening a character device.
    pub const fn node() -> Self {
        let mut table = VTable::<T>::BASE;
        table.open = Some(open_node_callback::<T>);
        Self(table, PhantomData)
    }
}

impl<T: OpenNumber> FileTable<T, Numbered> {
    /// Returns the table of files that are created by opening a number.
    pub const fn numbered() -> Self {
        let mut table = VTable::<T>::BASE;
        table.open = Some(open_number_callback::<T>);
        Self(table, PhantomData)
    }
}

/// # Safety
///
/// Only the VFS calls this, for a misc device that was registered with a [`FileTable<T, Misc>`].
unsafe extern "C" fn open_misc_callback<T: OpenMisc>(
    _inode: *mut bindings::inode,
    file: *mut bindings::file,
) -> c_int {
    from_result(|| {
        let data = T::open()?;
        // SAFETY: The file is being opened, so nothing else accesses `private_data`.
        unsafe { (*file).private_data = data.into_foreign() };
        Ok(0)
    })
}

/// # Safety
///
/// Only the VFS calls this function, for a character device that was registered as a
/// `NodeInner<T::Node>`.
unsafe extern "C" fn open_node_callback<T: OpenNode>(
    inode: *mut bindings::inode,
    file: *mut bindings::file,
) -> c_int {
    from_result(|| {
        // SAFETY: During `open` the VFS holds a reference to `i_cdev`, which keeps the node.
        let node =
            unsafe { NodeInner::<T::Node>::from_cdev(bindings::kernel_ext_inode_cdev(inode)) };
        let data = T::open(node)?;
        // SAFETY: The file is being opened, so nothing else accesses `private_data`.
        unsafe { (*file).private_data = data.into_foreign() };
        Ok(0)
    })
}

/// # Safety
///
/// Only the VFS calls this function, for a number of `NumberedNodes`.
unsafe extern "C" fn open_number_callback<T: OpenNumber>(
    inode: *mut bindings::inode,
    file: *mut bindings::file,
) -> c_int {
    from_result(|| {
        // SAFETY: The inode is valid during `open`.
        let minor = unsafe { (*inode).i_rdev } & bindings::MINORMASK;
        let data = T::open(minor)?;
        // SAFETY: The file is being opened, so nothing else accesses `private_data`.
        unsafe { (*file).private_data = data.into_foreign() };
        // SAFETY: The file is being opened and holds a `T::Data`.
        unsafe { map_through_inode::<T>(file) };
        Ok(0)
    })
}

/// The callbacks for C.
///
/// The VFS calls them for a file whose `f_op` is a [`FileTable<T>`].
struct VTable<T>(PhantomData<T>);

impl<T: FileOperations> VTable<T> {
    /// # Safety
    ///
    /// See [`VTable`].
    unsafe fn data<'a>(file: *mut bindings::file) -> Borrowed<'a, T> {
        // SAFETY: By the invariant of `FileTable`; the VFS calls no operation after `release`.
        unsafe { T::Data::borrow((*file).private_data) }
    }

    /// # Safety
    ///
    /// See [`VTable`]; this is called once, as the last operation.
    unsafe extern "C" fn release(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: By the invariant of `FileTable`; this is the last call for the file.
        drop(unsafe { T::Data::from_foreign((*file).private_data) });
        0
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn ioctl(file: *mut bindings::file, cmd: c_uint, arg: c_ulong) -> c_long {
        // SAFETY: By this function's contract.
        let data = unsafe { Self::data(file) };
        // SAFETY: The file is valid during the call, and `ioctl` doesn't use `fdget_pos`.
        let file = unsafe { File::from_raw_file(file) };
        match T::ioctl(data, file, cmd, arg) {
            Ok(value) => value as c_long,
            Err(e) => e.to_errno() as c_long,
        }
    }

    /// # Safety
    ///
    /// See [`VTable`]; `pos` is valid.
    unsafe extern "C" fn read(
        file: *mut bindings::file,
        buf: *mut c_char,
        count: usize,
        pos: *mut i64,
    ) -> isize {
        // SAFETY: By this function's contract.
        let (data, pos) = unsafe { (Self::data(file), &mut *pos) };
        from_result(|| Ok(T::read(data, UserPtr::from_ptr(buf.cast()), count, pos)? as isize))
    }

    /// # Safety
    ///
    /// See [`VTable`]; `pos` is valid.
    unsafe extern "C" fn write(
        file: *mut bindings::file,
        buf: *const c_char,
        count: usize,
        pos: *mut i64,
    ) -> isize {
        // SAFETY: By this function's contract.
        let (data, pos) = unsafe { (Self::data(file), &mut *pos) };
        let buf = UserPtr::from_ptr(buf.cast_mut().cast());
        from_result(|| Ok(T::write(data, buf, count, pos)? as isize))
    }

    /// # Safety
    ///
    /// See [`VTable`]; `vma` is being set up.
    unsafe extern "C" fn mmap(
        file: *mut bindings::file,
        vma: *mut bindings::vm_area_struct,
    ) -> c_int {
        // SAFETY: By this function's contract.
        let (data, vma) = unsafe { (Self::data(file), VmaNew::from_raw(vma)) };
        from_result(|| T::mmap(data, vma).map(|()| 0))
    }

    /// # Safety
    ///
    /// See [`VTable`]; `table` is null or valid.
    unsafe extern "C" fn poll(
        file: *mut bindings::file,
        table: *mut bindings::poll_table_struct,
    ) -> bindings::__poll_t {
        // SAFETY: By this function's contract.
        let data = unsafe { Self::data(file) };
        // SAFETY: The file is valid during the call, and `poll` doesn't use `fdget_pos`.
        let file = unsafe { File::from_raw_file(file) };
        // SAFETY: By this function's contract.
        T::poll(data, file, unsafe { PollTable::from_raw(table) })
    }

    /// # Safety
    ///
    /// See [`VTable`]; `m` is valid.
    unsafe extern "C" fn show_fdinfo(m: *mut bindings::seq_file, file: *mut bindings::file) {
        // SAFETY: By this function's contract.
        let (data, m) = unsafe { (Self::data(file), SeqFile::from_raw(m)) };
        T::show_fdinfo(data, m);
    }

    const BASE: bindings::file_operations = bindings::file_operations {
        owner: this_module::<T::OwnerModule>().as_ptr(),
        release: Some(Self::release),
        unlocked_ioctl: Some(Self::ioctl),
        compat_ioctl: bindings::compat_ptr_ioctl,
        read: if T::HAS_READ { Some(Self::read) } else { None },
        write: if T::HAS_WRITE {
            Some(Self::write)
        } else {
            None
        },
        poll: if T::HAS_POLL { Some(Self::poll) } else { None },
        mmap: if T::HAS_MMAP { Some(Self::mmap) } else { None },
        show_fdinfo: if T::HAS_SHOW_FDINFO {
            Some(Self::show_fdinfo)
        } else {
            None
        },
        ..pin_init::zeroed()
    };
}
