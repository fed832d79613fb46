// SPDX-License-Identifier: GPL-2.0

//! VFIO container backend for the PAMU, the IOMMU of Freescale's QorIQ SoCs.
//!
//! A PAMU has no page tables. It gives each device, identified by its LIODN, one range of
//! addresses: the aperture. The aperture is divided into a power of two of windows, and each window
//! leads to one block of memory.
//!
//! Hardware layer, which drivers of PAMUs in other modules (`pamu_sim`) use:
//!
//! - [`registers`], [`pamu`]: the registers of a PAMU, and operations through them.
//! - [`paace`]: table entries (PPAACE and SPAACE) and their encoding. [`tables`]: the tables in
//!   memory (PPAACT, SPAACT, OMT), and the order of updates while the hardware reads them.
//! - [`liodn`]: an owned LIODN and its windows.
//! - [`system`]: all PAMUs of a machine, their registration, and the handling of violations.
//!   [`violation`]: access violations.
//! - [`platform_driver`]: the PAMUs of the device tree. [`iommu`]: the same as the IOMMU of PCI
//!   devices. [`firmware`]: firmware properties of devices and caches.
//!
//! Container layer:
//!
//! - [`backend`]: the entry points from `vfio.ko`. [`request`]: checks of ioctl arguments.
//! - [`container`]: the state of a container and its locking; attaching and detaching of groups.
//! - [`windows`]: the windows of a container, and what may be mapped there in which state.
//! - [`attributes`], [`map`], [`msi`]: ioctls for attributes, mappings and MSI banks. [`memory`]:
//!   pinning of memory.
//!
//! [`debugfs`]: files for troubleshooting.
//!
//! C header: `include/uapi/vfio_pamu.h`

#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod abi;
mod attributes;
mod backend;
mod container;
mod debugfs;
mod firmware;
mod iommu;
pub mod liodn;
mod map;
mod memory;
pub mod msi;
pub mod paace;
pub mod pamu;
mod platform_driver;
pub mod registers;
mod request;
pub mod system;
pub mod tables;
#[cfg(CONFIG_KUNIT = "y")]
pub mod testing;
pub mod violation;
mod windows;

use kernel::prelude::*;

use kernel_ext::iommu_driver::{
    Registration,
    Table, //
};

use crate::{
    container::Container,
    debugfs::Debugfs,
    platform_driver::Drivers, //
};

kernel_ext::compat::module! {
    type: Module,
    name: "vfio_iommu_pamu",
    authors: ["The VFIO in Rust authors"],
    description: "VFIO IOMMU backend for the Freescale PAMU",
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
    _debugfs: Debugfs,
}

impl Module {
    /// Registers the drivers of the PAMUs, and the backend.
    fn new(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            _debugfs: Debugfs::new()?,
            _registration: Registration::new(&TABLE)?,
            // Last: an error after the PAMUs were enabled would block all DMA.
            _drivers <- Drivers::new(module),
        })
    }
}
