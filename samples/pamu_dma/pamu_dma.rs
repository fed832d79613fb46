// SPDX-License-Identifier: GPL-2.0

//! A driver of copy engines behind a software PAMU, which programs use through VFIO.
//!
//! ```sh
//! modprobe pamu_sim
//! insmod build/native/pamu_dma.ko devices=2
//! ls -l /sys/bus/platform/devices/pamu_dma.0/iommu_group
//! ```
//!
//! Region 0 of a device contains the [`registers`] of its [`engine`]. All accesses of the engine go
//! through the PAMU with the LIODN in its firmware node. So does its interrupt, a write to the
//! doorbell of an MSI bank, at the address where the program has mapped the bank.
//! `samples/user/pamu_dma` is a program that uses the engines.
//!
//! For tests only: a register lets the program select the LIODN of an engine, so that the engine
//! can act as any other device.

#![deny(unsafe_code)]

mod engine;
mod registers;

use kernel::{
    driver,
    platform,
    prelude::*,
    InPlaceModule, //
};

use kernel_ext::{
    module_param,
    platform_device::PlatformDevice,
    vfio_device::PlatformDriver, //
};

use pamu_sim::BusMaster;

use crate::engine::Engine;

kernel_ext::compat::module! {
    type: PamuDma,
    name: "pamu_dma",
    authors: ["The VFIO in Rust authors"],
    description: "Sample driver for devices behind a software PAMU",
    license: "GPL v2",
}

module_param! {
    /// The number of devices. Read when the module is loaded.
    static DEVICES: u32 = 2;
    name: "devices",
    kind: "uint",
    description: "Number of devices, up to 16 (default 2); their LIODNs are 16, 17 and so on"
}

/// The maximum number of devices.
const MAX_DEVICES: u32 = 16;

/// The LIODN of the first device.
const FIRST_LIODN: u16 = 16;

/// The number of MSI banks that the devices are wired to in turn.
const BANKS: u32 = 3;

/// The module. Unloading it removes the devices, then the driver.
#[pin_data]
struct PamuDma {
    // Fields are dropped in order.
    _devices: KVec<PlatformDevice>,
    #[pin]
    _driver: driver::Registration<platform::Adapter<PlatformDriver<Engine>>>,
}

impl InPlaceModule for PamuDma {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let count = DEVICES.get();
            if count > MAX_DEVICES {
                return Err(EINVAL);
            }
            // Fails if there is no software PAMU.
            BusMaster::with_liodn(FIRST_LIODN)?;
            Ok(try_pin_init!(Self {
                _driver <- driver::Registration::new(c"pamu_dma", module),
                _devices: devices(count)?,
            }))
        })
    }
}

/// Creates the platform devices, with the firmware properties that describe how they are wired.
fn devices(count: u32) -> Result<KVec<PlatformDevice>> {
    let mut devices = KVec::with_capacity(count as usize, GFP_KERNEL)?;
    for number in 0..count {
        let properties = [
            (engine::LIODN_PROPERTY, u32::from(FIRST_LIODN) + number),
            (engine::BANK_PROPERTY, number % BANKS),
        ];
        let device = PlatformDevice::new(c"pamu_dma", number, &properties)?;
        devices.push(device, GFP_KERNEL)?;
    }
    Ok(devices)
}
