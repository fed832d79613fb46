// SPDX-License-Identifier: GPL-2.0

//! VFIO container backend for the PAMU, the IOMMU of Freescale's QorIQ SoCs.
//!
//! A PAMU has no page tables. It gives each device, identified by its LIODN, one range of
//! addresses: the aperture. The aperture is divided into a power of two of windows, and each window
//! leads to one block of memory.
//!
//! Modules of the hardware layer:
//!
//! - [`paace`]: entries of the tables and their encoding. [`tables`]: the tables in memory, and the
//!   order in which entries are updated while the hardware reads them.
//! - [`registers`], [`pamu`]: operations on a PAMU through its registers. [`mmio`] is the hardware,
//!   [`software`] a model for machines without PAMUs.
//! - [`system`]: all PAMUs of a machine, and the handling of violations. [`liodn`]: an owned LIODN.
//!   [`violation`]: refused transactions.
//! - [`debugfs`]: files for troubleshooting. [`parameters`]: module parameters.
//! - [`firmware`], [`msi`]: firmware properties of devices, caches and interrupts.
//!
//! Modules of the container layer:
//!
//! - [`geometry`], [`windows`]: the windows, and what may be mapped there in which state.
//! - [`container`]: the state of a container and its locking. [`attach`]: attaching and detaching
//!   of groups.
//! - [`request`]: checks of ioctl arguments. [`attributes`], [`map`], [`bank`], [`msi_file`],
//!   [`report`]: the ioctls. [`memory`]: pinning of memory.
//!
//! C header: `include/uapi/vfio_pamu.h`; `include/vfio_pamu.h` for devices behind a software PAMU.

#![deny(unsafe_code)]

mod abi;
mod attach;
mod attributes;
mod backend;
mod bank;
mod container;
mod debugfs;
mod firmware;
mod geometry;
mod liodn;
mod map;
mod memory;
mod mmio;
mod msi;
mod msi_file;
mod paace;
mod pamu;
mod parameters;
mod registers;
mod report;
mod request;
mod software;
mod system;
mod tables;
#[cfg(CONFIG_KUNIT = "y")]
mod testing;
mod violation;
mod windows;

use kernel::{
    prelude::*,
    InPlaceModule, //
};

use kernel_ext::iommu_driver::{
    Registration,
    Table, //
};

use crate::{
    container::Container,
    debugfs::Debugfs,
    mmio::Drivers,
    software::Machine, //
};

module! {
    type: Module,
    name: "vfio_iommu_pamu",
    authors: ["The VFIO in Rust authors"],
    description: "PAMU driver for VFIO",
    license: "GPL v2",
}

/// The callbacks that this backend registers with `vfio.ko`.
static TABLE: Table<Container> = Table::new();

/// The module. While it is loaded, its PAMUs are enabled and containers can choose this backend.
#[pin_data]
struct Module {
    _registration: Registration<Container>,
    #[pin]
    _drivers: Drivers,
    _software: Option<software::Published>,
    #[pin]
    _debugfs: Debugfs,
}

impl InPlaceModule for Module {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        abi::init_globals();
        try_pin_init!(Self {
            _drivers <- Drivers::new(module),
            // After the hardware PAMUs, because there are no software PAMUs beside them.
            _software: Machine::of_parameters()?,
            _debugfs <- Debugfs::new(),
            _registration: Registration::new(&TABLE)?,
        })
    }
}
