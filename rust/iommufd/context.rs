// SPDX-License-Identifier: GPL-2.0

//! The iommufd of a file.

use core::ptr::NonNull;

use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    fs::LocalFile,
    prelude::*, //
};

use crate::{
    bindings,
    iommu::Group, //
};

/// A counted reference to an iommufd, `struct iommufd_ctx`. Two are equal if they refer to the same
/// iommufd.
///
/// # Invariants
///
/// The pointer is valid, and this value owns one reference.
#[derive(PartialEq, Eq)]
#[repr(transparent)]
pub struct Context(NonNull<bindings::iommufd_ctx>);

// SAFETY: An iommufd is reference counted and not tied to a thread.
unsafe impl Send for Context {}
// SAFETY: IOMMUFD locks what its functions change.
unsafe impl Sync for Context {}

impl Context {
    /// Takes over the reference in the result of a C function.
    ///
    /// # Safety
    ///
    /// `raw` is an error pointer, or a counted reference that the caller owns.
    unsafe fn from_result(raw: *mut bindings::iommufd_ctx) -> Result<Self> {
        // INVARIANT: By this function's contract.
        NonNull::new(from_err_ptr(raw)?).map(Self).ok_or(EBADFD)
    }

    /// Returns the iommufd of a file.
    ///
    /// # Errors
    ///
    /// `EBADFD` if the file is not one of `/dev/iommu`.
    pub fn of_file(file: &LocalFile) -> Result<Self> {
        // SAFETY: The file is valid; the function returns a counted reference or an error pointer.
        unsafe { Self::from_result(bindings::iommufd_ctx_from_file(file.as_ptr())) }
    }

    /// Returns the iommufd of a file descriptor.
    ///
    /// # Errors
    ///
    /// `EBADF` if `fd` is not open; `EBADFD` if it is not of `/dev/iommu`.
    pub fn of_fd(fd: u32) -> Result<Self> {
        let fd = i32::try_from(fd).map_err(|_| EBADF)?;
        // SAFETY: The function returns a counted reference or an error pointer.
        unsafe { Self::from_result(bindings::iommufd_ctx_from_fd(fd)) }
    }

    /// Borrows the iommufd that a C caller passes.
    ///
    /// # Safety
    ///
    /// `raw` points to a valid iommufd for all of `'a`.
    pub unsafe fn from_raw<'a>(raw: &'a NonNull<bindings::iommufd_ctx>) -> &'a Self {
        // SAFETY: `Context` is a transparent wrapper. The borrowed value is not dropped, so it does
        // not give up a reference.
        unsafe { &*core::ptr::from_ref(raw).cast() }
    }

    /// Returns the C pointer.
    pub fn as_ptr(&self) -> *mut bindings::iommufd_ctx {
        self.0.as_ptr()
    }

    /// Creates the address space that the requests of VFIO containers act on, unless the iommufd
    /// has one.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the iommufd is used for devices without an IOMMU; `ENOMEM`.
    pub fn create_compat_ioas(&self) -> Result {
        // SAFETY: By the type invariant.
        to_result(unsafe { bindings::iommufd_vfio_compat_ioas_create(self.as_ptr()) })
    }

    /// Returns the id of the address space that the requests of VFIO containers act on.
    ///
    /// # Errors
    ///
    /// `ENODEV` if there is none.
    pub fn compat_ioas(&self) -> Result<u32> {
        let mut id = 0;
        // SAFETY: By the type invariant; `id` is valid.
        to_result(unsafe { bindings::iommufd_vfio_compat_ioas_get_id(self.as_ptr(), &mut id) })?;
        Ok(id)
    }

    /// Reserves the iommufd for VFIO groups without an IOMMU.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it has an address space for VFIO containers.
    pub fn set_no_iommu(&self) -> Result {
        // SAFETY: By the type invariant.
        to_result(unsafe { bindings::iommufd_vfio_compat_set_no_iommu(self.as_ptr()) })
    }

    /// Returns whether a device of `group` is bound to the iommufd.
    pub fn has_group(&self, group: &Group) -> bool {
        // SAFETY: By the type invariant; `group` is valid.
        unsafe { bindings::iommufd_ctx_has_group(self.as_ptr(), group.as_ptr()) }
    }
}

impl Clone for Context {
    fn clone(&self) -> Self {
        // SAFETY: By the type invariant.
        unsafe { bindings::iommufd_ctx_get(self.as_ptr()) };
        // INVARIANT: The reference was just taken.
        Self(self.0)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this value owns the reference.
        unsafe { bindings::iommufd_ctx_put(self.as_ptr()) };
    }
}
