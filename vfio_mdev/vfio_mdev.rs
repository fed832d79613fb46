// SPDX-License-Identifier: GPL-2.0

//! Mediated devices: the bus, and the kernel interface of `mdev.ko`.
//!
//! A *parent* is a device that can be shared out; its driver registers it with the *types* of device
//! that it can make. Userspace makes a device by writing a UUID to a type's `create`, and removes it
//! by the device's `remove`. The bus binds the new device to the parent's driver, which offers it to
//! userspace through VFIO.
//!
//! [`abi`] is the only place with unsafe code: it wraps the structures of `include/linux/mdev.h`, and
//! defines the functions of that header which C drivers call.
//!
//! # Drivers
//!
//! A driver in Rust implements [`Parent`], [`Type`] and [`Device`], without unsafe code, and keeps a
//! [`Registration`] or a [`VirtualParent`]. Regions, interrupts and the requests of `<linux/vfio.h>`
//! are the bus's work, and so is the order of teardown: a device is closed before it goes, it goes
//! before its parent, that before its driver. `Documentation/mdev.rst` tells more. This is a complete
//! one, `samples/mdev_null`:
#![doc = "```ignore"]
#![doc = include_str!("../samples/mdev_null/mdev_null.rs")]
#![doc = "```"]
//!
//! Lock order: `Documentation/locking.rst`.

#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod abi;
mod capacity;
mod dma_log;
mod driver;
mod lifecycle;
mod migration;
mod peers;
mod registry;
mod uuid;

use kernel::prelude::*;

pub use abi::{
    driver::{
        Driver,
        Registration,
        VirtualParent, //
    },
    instance::Instance,
    members::Members,
    memory::Memory,
    pages::{
        GuestAccess,
        GuestPages,
        MAX_PAGES, //
    },
    store::{
        copy,
        Store, //
    }, //
};
pub use driver::{
    migrate::{
        Activity,
        Migrate,
        Migration, //
    },
    pci,
    Access,
    Device,
    DeviceApi,
    Index,
    NoIrqs,
    Number,
    Parent,
    Region,
    Type,
    TypeOf,
    Width,
    MAX_VECTORS, //
};
pub use uuid::Uuid;

module! {
    type: Mdev,
    name: "mdev",
    authors: ["The VFIO in Rust authors"],
    description: "Mediated device Core Driver",
    license: "GPL v2",
}

/// The module's registrations, undone from top to bottom.
struct Mdev {
    _compat_class: abi::bus::CompatClass,
    _bus: abi::bus::BusRegistration,
}

impl kernel::Module for Mdev {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        registry::init();
        let bus = abi::bus::BusRegistration::new()?;
        Ok(Self {
            _compat_class: abi::bus::CompatClass::new()?,
            _bus: bus,
        })
    }
}
