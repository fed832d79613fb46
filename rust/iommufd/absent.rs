// SPDX-License-Identifier: GPL-2.0

//! The iommufd of a file on a kernel without IOMMUFD: there is none.

use core::convert::Infallible;

use kernel::{
    fs::LocalFile,
    prelude::*, //
};

use crate::{
    bindings,
    compat::EOPNOTSUPP, //
};

/// An iommufd, which this kernel doesn't have.
#[derive(Clone, PartialEq, Eq)]
pub struct Context(Infallible);

impl Context {
    /// Returns the iommufd of a file.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP`, always.
    pub fn of_file(_file: &LocalFile) -> Result<Self> {
        Err(EOPNOTSUPP)
    }

    /// Returns the iommufd of a file descriptor.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP`, always.
    pub fn of_fd(_fd: u32) -> Result<Self> {
        Err(EOPNOTSUPP)
    }

    /// Returns the C pointer.
    pub fn as_ptr(&self) -> *mut bindings::iommufd_ctx {
        match self.0 {}
    }

    /// Creates the address space of VFIO containers.
    pub fn create_compat_ioas(&self) -> Result {
        match self.0 {}
    }

    /// Returns the id of the address space of VFIO containers.
    pub fn compat_ioas(&self) -> Result<u32> {
        match self.0 {}
    }

    /// Reserves the iommufd for devices without an IOMMU.
    pub fn set_no_iommu(&self) -> Result {
        match self.0 {}
    }
}
