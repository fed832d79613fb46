// SPDX-License-Identifier: GPL-2.0

//! A minimal mediated device driver. Each device has a page of memory and a register.
//!
//! ```sh
//! insmod build/native/mdev_null.ko    # after modprobe mdev
//! uuidgen >/sys/class/mdev_bus/mdev_null/mdev_supported_types/mdev_null-page/create
//! ```
//!
//! Region 0 is the memory, which a program can map. Region 1 has one 32-bit register, which must be
//! accessed as a whole. A write to it signals the device's interrupt. A reset sets the memory and
//! the register to zero, which is also their state for the next user.

#![deny(unsafe_code)]

use core::sync::atomic::{
    AtomicU32,
    Ordering::Relaxed, //
};

use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::Arc, //
};
use vfio_mdev::{
    Access,
    Device,
    DeviceApi,
    DeviceMemory,
    Instance,
    Number,
    Parent,
    Region,
    Type,
    Uuid,
    VirtualParent,
    Width, //
};

kernel_ext::compat::module! {
    type: MdevNull,
    name: "mdev_null",
    authors: ["The VFIO in Rust authors"],
    description: "Minimal sample driver for mediated devices",
    license: "GPL v2",
}

/// The module. Unloading it removes the parent, which removes its devices.
struct MdevNull {
    _parent: VirtualParent<Null>,
}

impl kernel::Module for MdevNull {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self {
            _parent: VirtualParent::new(Null)?,
        })
    }
}

/// The parent of the devices.
struct Null;

impl Parent for Null {
    type OwnerModule = crate::LocalModule;
    type Type = Page;
    type Device = NullDevice;

    const NAME: &'static CStr = c"mdev_null";
    const API: DeviceApi = DeviceApi::Platform;
    const TYPES: &'static [Page] = &[Page];

    fn capacity(&self) -> u32 {
        1024
    }
}

/// The only type of device.
struct Page;

impl Type for Page {
    fn sysfs_name(&self) -> &'static CStr {
        c"page"
    }

    fn description(&self) -> &'static CStr {
        c"a page of memory, a register and an interrupt"
    }
}

/// A device.
struct NullDevice {
    memory: DeviceMemory,
    register: AtomicU32,
}

impl NullDevice {
    const MEMORY: Number<2> = Number::of::<0>();
    const INTERRUPT: Number<1> = Number::of::<0>();
}

/// Returns `EINVAL` unless the access covers the whole register.
fn whole(at: Access) -> Result {
    (at.width == Width::Long).then_some(()).ok_or(EINVAL)
}

impl Device for NullDevice {
    type Parent = Null;
    type Region = Number<2>;
    type Irq = Number<1>;

    fn create(_: &Arc<Null>, _: &'static Page, _: Uuid) -> impl PinInit<Self, Error> {
        try_init!(Self {
            memory: DeviceMemory::new(PAGE_SIZE)?,
            register: AtomicU32::new(0),
        })
    }

    fn region(&self, region: Number<2>) -> Option<Region<'_>> {
        Some(match region {
            Self::MEMORY => Region::memory(&self.memory),
            _ => Region::registers(4),
        })
    }

    fn vectors(&self, _: Number<1>) -> u32 {
        1
    }

    fn read(this: &Instance<Self>, _: Number<2>, at: Access) -> Result<u32> {
        whole(at)?;
        Ok(this.register.load(Relaxed))
    }

    fn write(this: &Instance<Self>, _: Number<2>, at: Access, value: u32) -> Result {
        whole(at)?;
        this.register.store(value, Relaxed);
        this.signal(Self::INTERRUPT, 0);
        Ok(())
    }

    fn reset(this: &Instance<Self>) -> Result {
        this.register.store(0, Relaxed);
        this.memory.fill(0, PAGE_SIZE, 0)
    }
}
