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
//! Lock order: `Documentation/locking.rst`.

#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod abi;
mod lifecycle;
mod registry;
mod uuid;

use kernel::prelude::*;

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
