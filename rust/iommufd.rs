// SPDX-License-Identifier: GPL-2.0

//! IOMMUFD: address spaces that userspace creates through `/dev/iommu`.
//!
//! A [`Context`] is the iommufd of one file. A device that does DMA is bound to it as a
//! `BoundDevice`; a driver that accesses the mapped memory itself has an `Access`. Both are
//! attached to the objects of the iommufd, which userspace selects by their ids.
//!
//! On a kernel without IOMMUFD a [`Context`] can't exist, and the other two are missing.
//!
//! C header: [`include/linux/iommufd.h`](srctree/include/linux/iommufd.h)

#[cfg(CONFIG_IOMMUFD)]
mod access;
#[cfg(CONFIG_IOMMUFD)]
mod bound_device;
#[cfg_attr(not(CONFIG_IOMMUFD), path = "iommufd/absent.rs")]
mod context;

#[cfg(CONFIG_IOMMUFD)]
pub use access::{
    Access,
    Unmap, //
};
#[cfg(CONFIG_IOMMUFD)]
pub use bound_device::BoundDevice;
pub use context::Context;
