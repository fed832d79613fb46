// SPDX-License-Identifier: GPL-2.0

//! Safe wrappers over the C interfaces that VFIO needs and the `kernel` crate lacks.

pub mod anon_file;
pub mod array_vec;
pub mod bindings;
pub mod chardev;
pub mod compat;
pub mod debugfs;
pub mod eventfd;
pub mod extent;
pub mod file_ops;
pub mod firmware;
pub mod ida;
pub mod iommu;
pub mod iommu_driver;
pub mod iommufd;
pub mod iova;
pub mod iova_bitmap;
pub mod keyed_wait;
pub mod migration;
pub mod misc;
pub mod mm;
pub mod module;
pub mod mutex;
pub mod owned_work;
pub mod param;
pub mod pasid;
pub mod platform_device;
pub mod rwsem;
pub mod symbol;
pub mod task;
#[cfg(CONFIG_KUNIT)]
pub mod testing;
pub mod ticks;
pub mod tree;
pub mod uapi;
pub mod user_string;
pub mod vec_slot;
pub mod vfio_device;

use kernel::prelude::*;

crate::compat::module! {
    type: KernelExt,
    name: "vfio_rust",
    authors: ["The VFIO in Rust authors"],
    description: "Safe Rust wrappers shared by the VFIO modules",
    license: "GPL v2",
}

/// The module. It contains code and one lock.
struct KernelExt;

impl kernel::Module for KernelExt {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        // SAFETY: Modules that use this one are loaded later.
        unsafe { iommu::init_lock() };
        Ok(Self)
    }
}
