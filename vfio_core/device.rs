// SPDX-License-Identifier: GPL-2.0

//! Devices: drivers register them, and userspace opens them by name through a group, or by a file
//! of their own.

#[allow(unsafe_code)]
mod abi;
pub(crate) mod cdev;
#[allow(unsafe_code)]
#[cfg(CONFIG_VFIO_DEBUGFS)]
#[path = "device/debugfs/abi.rs"]
mod debugfs;
#[allow(unsafe_code)]
#[path = "device/dma/abi.rs"]
pub(crate) mod dma;
mod feature;
pub(crate) mod file;
#[allow(unsafe_code)]
#[path = "device/iommufd/abi.rs"]
mod iommufd;
#[allow(unsafe_code)]
#[path = "device/logging/abi.rs"]
pub(crate) mod logging;
#[allow(unsafe_code)]
#[path = "device/ops/abi.rs"]
mod ops;
pub(crate) mod registration;
#[allow(unsafe_code)]
#[path = "device/set/abi.rs"]
pub(crate) mod set;
#[cfg(CONFIG_IOMMUFD)]
#[allow(unsafe_code)]
#[path = "device/standard/abi.rs"]
mod standard;

pub(crate) use abi::{
    alloc,
    init_locks,
    Device, //
};

use kernel::prelude::*;
use kernel_ext::chardev::{
    Class,
    DevFolder, //
};

/// `/sys/class/vfio-dev`
pub(crate) static CLASS: Class = Class::new::<Nodes>(c"vfio-dev");

struct Nodes;

impl DevFolder for Nodes {
    const FOLDER: &'static CStr = c"vfio/devices";
}
