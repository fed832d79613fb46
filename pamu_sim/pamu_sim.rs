// SPDX-License-Identifier: GPL-2.0

//! Software PAMUs, for tests on machines without PAMUs.
//!
//! A software PAMU models the hardware. The driver, `vfio_iommu_pamu`, gives it the physical
//! addresses of the tables through its registers, and it reads the entries from memory for each
//! transaction. A permitted transaction reaches the machine's memory, or the doorbell of an MSI
//! bank. A refused transaction is recorded in the registers and raises an interrupt.
//!
//! A device is any caller of a [`BusMaster`], with any LIODN. Nothing but
//! its driver isolates such a device from other devices, so loading this module taints the kernel
//! as one under test.
//!
//! - [`machine`]: the PAMUs and MSI banks of this machine.
//! - [`software_pamu`]: the registers of a PAMU. [`walk`]: the translation of a transaction.
//! - [`bus_master`]: DMA of a device. [`msi`]: MSI banks and the interrupts of devices.
//! - [`abi`]: the entry point of the module, the registration of the machine, and access to
//!   physical memory.
//!
//! Drivers of devices behind a software PAMU use [`BusMaster`] and [`Msi`] in place of hardware,
//! see `samples/pamu_dma`.

#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod abi;
mod bus_master;
mod machine;
mod msi;
mod software_pamu;
#[cfg(CONFIG_KUNIT = "y")]
mod tests;
mod walk;

use kernel_ext::module_param;

use crate::abi::Registered;

pub use crate::{
    bus_master::{
        BusMaster,
        Denied, //
    },
    msi::Msi, //
};

kernel_ext::compat::module! {
    type: Module,
    name: "pamu_sim",
    authors: ["The VFIO in Rust authors"],
    description: "Software PAMUs for tests of VFIO",
    license: "GPL v2",
}

module_param! {
    /// The number of software PAMUs.
    static PAMUS: u32 = 1;
    name: "pamus",
    kind: "uint",
    description: "Number of software PAMUs, 1 to 64 (default 1)"
}

module_param! {
    /// The number of MSI banks.
    static MSI_BANKS: u32 = 3;
    name: "msi_banks",
    kind: "uint",
    description: "Number of MSI banks behind the software PAMUs, up to 64 (default 3)"
}

/// The module. While it is loaded, containers can use its PAMUs.
struct Module(#[expect(dead_code)] Registered);
