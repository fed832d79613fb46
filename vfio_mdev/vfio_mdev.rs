// SPDX-License-Identifier: GPL-2.0

//! Mediated devices: the mdev bus and the kernel interface of `mdev.ko`.
//!
//! A *parent* is a device that can be shared between users. Its driver registers it with the
//! *types* of device that it can create. Userspace creates a device by writing a UUID to the
//! `create` attribute of a type, and removes it through the `remove` attribute of the device. The
//! bus binds the new device to the parent's driver, which offers it to userspace through VFIO.
//!
//! Unsafe code is confined to [`abi`]. It wraps the structures of `include/linux/mdev.h` and
//! defines the functions of that header, which C drivers call.
//!
//! # Drivers
//!
//! A Rust driver implements [`Parent`], [`Type`] and [`Device`] without unsafe code, and keeps a
//! [`Registration`] or a [`VirtualParent`]. The bus implements regions, interrupts and the requests
//! of `<linux/vfio.h>`. It also ensures the order of teardown: a device is closed before it is
//! removed, it is removed before its parent is unregistered, and the parent is unregistered before
//! its driver. See `Documentation/mdev.rst`. This is a complete driver, `samples/mdev_null`:
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

/// The module's registrations, dropped in the order of the fields.
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
