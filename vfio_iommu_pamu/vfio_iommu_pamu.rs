// SPDX-License-Identifier: GPL-2.0

//! Backend of VFIO containers for the PAMU, the IOMMU of Freescale's QorIQ SoCs.
//!
//! A PAMU has no page tables. It gives each device, by its LIODN, one range of addresses, the
//! aperture, divided into a power of two of windows, each of which leads to one block of memory.
//!
//! - [`paace`]: entries of the tables, and how they are coded. [`tables`]: the tables in memory, and in
//!   what order entries change under the eyes of the hardware.
//! - [`registers`], [`pamu`]: what there is to do with a PAMU over its registers. [`mmio`] is the
//!   real one, [`software`] a model for machines that have none.
//! - [`system`]: all PAMUs of a machine, and who hears of violations. [`liodn`]: the owner of a LIODN.
//!   [`violation`]: what is refused.
//! - [`debugfs`]: files for people who look for faults. [`parameters`]: the module's.
//! - [`firmware`], [`msi`]: what firmware says about devices, caches and interrupts.
//!
//! That was the hardware. What a container makes of it:
//!
//! - [`geometry`], [`windows`]: which windows there are, and what may be mapped there when.
//! - [`container`]: the state of one container, and who may change it when. [`attach`]: groups of
//!   devices come and go.
//! - [`request`]: what programs may ask for. [`attributes`], [`map`], [`bank`], [`msi_file`], [`report`]: what
//!   they ask. [`memory`]: pinning it.
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

/// The callbacks that `vfio.ko` finds this backend by.
static TABLE: Table<Container> = Table::new();

/// The module: as long as it is loaded, its PAMUs work and containers can choose this backend.
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
            // After the real ones, beside which there are none in software.
            _software: Machine::of_parameters()?,
            _debugfs <- Debugfs::new(),
            _registration: Registration::new(&TABLE)?,
        })
    }
}
