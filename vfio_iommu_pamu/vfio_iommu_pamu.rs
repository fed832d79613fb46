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
//! - [`system`]: all PAMUs of a machine. [`liodn`]: the owner of a LIODN. [`violation`]: what is
//!   refused.
//! - [`firmware`], [`stash`], [`msi`]: what firmware says about devices, caches and interrupts.
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
// Until caches are here.
#![allow(dead_code)]

mod abi;
mod attach;
mod attributes;
mod backend;
mod bank;
mod container;
mod firmware;
mod geometry;
mod liodn;
mod map;
mod memory;
mod msi;
mod msi_file;
mod paace;
mod pamu;
mod registers;
mod report;
mod request;
pub mod software;
mod system;
mod tables;
#[cfg(CONFIG_KUNIT = "y")]
mod testing;
mod violation;
mod windows;

use kernel::prelude::*;

use kernel_ext::{
    iommu_driver::{
        Registration,
        Table, //
    },
    module_param, //
};

use crate::{
    abi::{
        MACHINE,
        SYSTEM, //
    },
    container::Container,
    software::Machine,
    tables::{
        Limits,
        Tables, //
    }, //
};

module! {
    type: Module,
    name: "vfio_iommu_pamu",
    authors: ["The VFIO in Rust authors"],
    description: "PAMU driver for VFIO",
    license: "GPL v2",
}

module_param! {
    /// How many PAMUs to have in software.
    static SOFTWARE: u32 = 0;
    name: "software",
    kind: "uint",
    description: "Number of PAMUs in software, for machines without any (0)."
}

module_param! {
    /// How many interrupt banks the software PAMUs have behind them.
    static SOFTWARE_MSI_BANKS: u32 = 3;
    name: "software_msi_banks",
    kind: "uint",
    description: "Number of MSI banks behind PAMUs in software (3)."
}

module_param! {
    /// How many LIODNs the tables have room for.
    static MAX_LIODNS: u32 = 1280;
    name: "max_liodns",
    kind: "uint",
    description: "Number of LIODNs (1280)."
}

module_param! {
    /// How many windows the tables have room for, the first one of each LIODN not counted.
    static MAX_SECONDARIES: u32 = 2048;
    name: "max_secondaries",
    kind: "uint",
    description: "Number of windows of all LIODNs, besides the first one of each (2048)."
}

module_param! {
    /// How many windows a LIODN may have.
    static MAX_WINDOWS: u32 = 256;
    name: "max_windows",
    kind: "uint",
    description: "Largest number of windows of a LIODN (256)."
}

/// The callbacks that `vfio.ko` finds this backend by.
static TABLE: Table<Container> = Table::new();

/// The module: as long as it is loaded, its PAMUs work and containers can choose this backend.
struct Module {
    _registration: Registration<Container>,
}

impl kernel::Module for Module {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        abi::init_globals();
        if SOFTWARE.get() != 0 {
            let tables = Tables::new(Limits {
                liodns: MAX_LIODNS.get(),
                secondaries: MAX_SECONDARIES.get(),
            })?;
            let machine = Machine::new(
                tables,
                SOFTWARE.get(),
                SOFTWARE_MSI_BANKS.get(),
                MAX_WINDOWS.get(),
            )?;
            *SYSTEM.lock() = Some(machine.system().clone());
            *MACHINE.lock() = Some(machine);
        }
        Ok(Self {
            _registration: Registration::new(&TABLE)?,
        })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        drop(MACHINE.lock().take());
        drop(SYSTEM.lock().take());
    }
}
