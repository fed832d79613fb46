// SPDX-License-Identifier: GPL-2.0

//! Devices: drivers register them, and userspace opens them by name through a group.

mod feature;
pub(crate) mod file;
pub(crate) mod registration;

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
