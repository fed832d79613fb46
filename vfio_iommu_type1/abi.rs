// SPDX-License-Identifier: GPL-2.0

//! The entry point of the module, which initialises the global lock.

use kernel::prelude::*;

use crate::{
    container,
    Type1, //
};

impl kernel::Module for Type1 {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        // SAFETY: The kernel calls this once, before any other function of the module.
        unsafe { container::init_lock() };
        Type1::new()
    }
}
