// SPDX-License-Identifier: GPL-2.0

//! x

use kernel::prelude::*;

module! {
    type: M,
    name: "vfio_core",
    authors: ["The VFIO in Rust authors"],
    description: "x",
    license: "GPL v2",
}

struct M;

impl kernel::Module for M {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self)
    }
}
