// SPDX-License-Identifier: GPL-2.0

//! A mediated device driver to begin with. Each device has one register, which counts its reads.

#![deny(unsafe_code)]

use core::sync::atomic::{
    AtomicU32,
    Ordering::Relaxed, //
};

use kernel::{
    prelude::*,
    sync::Arc, //
};
use vfio_mdev::{
    Access,
    Device,
    DeviceApi,
    Instance,
    NoIrqs,
    Number,
    Parent,
    Region,
    Type,
    Uuid,
    VirtualParent, //
};

kernel_ext::compat::module! {
    type: MdevCounter,
    name: "mdev_counter",
    authors: ["The VFIO in Rust authors"],
    description: "Mediated devices that count",
    license: "GPL v2",
}

/// The module. Unloading it removes the parent, which removes its devices.
struct MdevCounter {
    _parent: VirtualParent<Counters>,
}

impl kernel::Module for MdevCounter {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self {
            _parent: VirtualParent::new(Counters)?,
        })
    }
}

/// What all devices share.
struct Counters;

impl Parent for Counters {
    type OwnerModule = crate::LocalModule;
    type Type = CounterType;
    type Device = Counter;

    const NAME: &'static CStr = c"mdev_counter";
    const API: DeviceApi = DeviceApi::Platform;
    const TYPES: &'static [CounterType] = &[CounterType];

    /// The number of devices that can exist at a time.
    fn capacity(&self) -> u32 {
        16
    }
}

/// The only type of device.
struct CounterType;

impl Type for CounterType {
    fn sysfs_name(&self) -> &'static CStr {
        c"counter"
    }

    fn description(&self) -> &'static CStr {
        c"a register that counts its reads"
    }
}

/// A device.
struct Counter {
    reads: AtomicU32,
}

impl Device for Counter {
    type Parent = Counters;
    type Region = Number<1>;
    type Irq = NoIrqs;

    fn create(_: &Arc<Counters>, _: &'static CounterType, _: Uuid) -> impl PinInit<Self, Error> {
        try_init!(Self {
            reads: AtomicU32::new(0),
        })
    }

    fn region(&self, _: Number<1>) -> Option<Region<'_>> {
        Some(Region::registers(4))
    }

    fn vectors(&self, irq: NoIrqs) -> u32 {
        match irq {}
    }

    /// A program reads the register.
    fn read(this: &Instance<Self>, _: Number<1>, _: Access) -> Result<u32> {
        Ok(this.reads.fetch_add(1, Relaxed))
    }

    /// A program writes it.
    fn write(this: &Instance<Self>, _: Number<1>, _: Access, value: u32) -> Result {
        this.reads.store(value, Relaxed);
        Ok(())
    }

    /// The next user finds a device as new.
    fn reset(this: &Instance<Self>) -> Result {
        this.reads.store(0, Relaxed);
        Ok(())
    }
}
