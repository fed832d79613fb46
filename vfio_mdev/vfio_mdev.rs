// SPDX-License-Identifier: GPL-2.0

//! Mediated devices: the mdev bus and the kernel interface of `mdev.ko`.
//!
//! A *parent* is a device that can be shared between users. Its driver registers it with the
//! *types* of device that it can create. Userspace creates a device by writing a UUID to the
//! `create` attribute of a type, and removes it through the `remove` attribute of the device. The
//! bus binds the new device to the parent's driver, which offers it to userspace through VFIO.
//!
//! - [`exports`]: the functions of `include/linux/mdev.h`, which C drivers call
//! - [`bus`], [`parent`], [`device`]: the bus, its parents with their types, and its devices;
//!   [`sysfs`] has helpers for their attributes
//! - [`driver`]: the traits of a Rust driver, its registration, and the requests of
//!   `<linux/vfio.h>`
//! - [`instance`]: a device of a Rust driver; its [`memory`], and the pinned [`pages`] of its
//!   process
//! - [`migration`], [`dma_logging`]: saving and loading the state of a device; the log of its
//!   writes
//! - [`peers`]: peer-to-peer groups
//!
//! Unsafe code is confined to [`exports`] and to the `abi.rs` of each of these; [`abi`] is the
//! entry point.
//!
//! # Drivers
//!
//! A Rust driver implements [`Parent`], [`Type`] and [`Device`] without unsafe code, and keeps a
//! [`ParentRegistration`] or a [`VirtualParent`]. The bus implements regions, interrupts and the
//! requests of `<linux/vfio.h>`. It also ensures the order of teardown: a device is closed before
//! it is removed, it is removed before its parent is unregistered, and the parent is unregistered
//! before its driver. See `Documentation/mdev.rst`. This is a complete driver, `samples/mdev_null`:
#![doc = "```ignore"]
#![doc = include_str!("../samples/mdev_null/mdev_null.rs")]
#![doc = "```"]
//!
//! Lock order: `Documentation/locking.rst`.

#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod abi;
mod bus;
mod device;
mod dma_logging;
mod driver;
#[allow(unsafe_code)]
mod exports;
mod instance;
#[allow(unsafe_code)]
#[path = "memory/abi.rs"]
mod memory;
mod migration;
#[allow(unsafe_code)]
#[path = "pages/abi.rs"]
mod pages;
mod parent;
mod peers;
#[allow(unsafe_code)]
#[path = "sysfs/abi.rs"]
mod sysfs;
mod uuid;

use kernel::prelude::*;

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
    Driver,
    Index,
    NoIrqs,
    Number,
    Parent,
    ParentRegistration,
    Region,
    Type,
    TypeOf,
    VirtualParent,
    Width,
    MAX_VECTORS, //
};
pub use instance::Instance;
pub use memory::{
    copy,
    DeviceMemory,
    Store, //
};
pub use pages::{
    GuestAccess,
    GuestPages,
    MAX_PAGES, //
};
pub use peers::Members;
pub use uuid::Uuid;

kernel_ext::compat::module! {
    type: Mdev,
    name: "mdev",
    authors: ["The VFIO in Rust authors"],
    description: "Mediated device Core Driver",
    license: "GPL v2",
}

/// The module's registrations, dropped in the order of the fields.
struct Mdev {
    _compat_class: bus::CompatClass,
    _bus: bus::BusRegistration,
}

impl Mdev {
    /// Registers the bus, then its class.
    fn new() -> Result<Self> {
        let bus = bus::BusRegistration::new()?;
        Ok(Self {
            _compat_class: bus::CompatClass::new()?,
            _bus: bus,
        })
    }
}
