// SPDX-License-Identifier: GPL-2.0

//! Devices: what drivers register and what userspace opens by name through a group.

mod feature;
pub(crate) mod file;
pub(crate) mod registration;

use kernel::{
    prelude::*,
    sync::global_lock, //
};
use kernel_ext::chardev::{
    Class,
    DevFolder, //
};

use crate::numbers::Numbers;

global_lock! {
    // SAFETY: Initialised by `abi::init_locks` before the module can be used.
    pub(crate) unsafe(uninit) static NUMBERS: Mutex<Numbers> = Numbers::new();
}

/// `/sys/class/vfio-dev`
pub(crate) static CLASS: Class = Class::new::<Nodes>(c"vfio-dev");

struct Nodes;

impl DevFolder for Nodes {
    const FOLDER: &'static CStr = c"vfio/devices";
}
