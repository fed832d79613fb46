// SPDX-License-Identifier: GPL-2.0

//! The interface to C. All unsafe code of this crate is in this module.
//!
//! For drivers, [`device`] wraps `struct vfio_device` and the callbacks of its driver, and
//! [`exports`] defines the functions of `include/linux/vfio.h`. For backends, [`iommu_driver`]
//! calls `struct vfio_iommu_driver_ops`.

#[cfg(CONFIG_VFIO_DEBUGFS)]
mod debugfs;
pub(crate) mod device;
pub(crate) mod device_set;
mod exports;
pub(crate) mod globals;
pub(crate) mod iommu_driver;
pub(crate) mod kvm;
pub(crate) mod logging;
pub(crate) mod migration;
pub(crate) mod registration;
pub(crate) mod virqfd;
