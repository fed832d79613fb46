// SPDX-License-Identifier: GPL-2.0

//! Linux 7.3: the names as they are.

pub use kernel::{
    module::this_module,
    prelude::{
        module,
        EOPNOTSUPP, //
    },
    ModuleMetadata, //
};
pub use pin_init::raw_try_init;
