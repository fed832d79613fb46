// SPDX-License-Identifier: GPL-2.0

//! A mediated device whose driver pins, reads and writes pages of user memory on demand, one call
//! at a time. It is the Rust counterpart of the C driver `vfio_pin_test`, for the same programs.
//!
//! The driver contains no unsafe code. It is meant to commit every error that is possible without
//! it: [`interface`] has the list.

#![deny(unsafe_code)]

#[allow(dead_code, reason = "the programs need what a driver in C can do")]
mod interface;
mod kept;
mod pages;
mod requests;

use core::sync::atomic::{
    AtomicU32,
    Ordering::Relaxed, //
};

use kernel::{
    new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
    uaccess::UserPtr, //
};
use vfio_mdev::{
    Access,
    Device,
    DeviceApi,
    GuestAccess,
    Instance,
    NoIrqs,
    Number,
    Parent,
    Region,
    Type,
    Uuid,
    VirtualParent,
    MAX_PAGES, //
};

use crate::{
    interface::{
        KEEP,
        KEEP_CLOSED,
        PIN_AGAIN, //
    },
    kept::Kept,
    pages::Pages, //
};

kernel_ext::compat::module! {
    type: PinTest,
    name: "mdev_pin_test",
    authors: ["The VFIO in Rust authors"],
    description: "Mediated device that pins pages on demand, for tests",
    license: "GPL v2",
}

/// The module.
struct PinTest {
    parent: VirtualParent<Host>,
}

impl kernel::Module for PinTest {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self {
            parent: VirtualParent::new(Host { kept: Kept::new()? })?,
        })
    }
}

impl Drop for PinTest {
    fn drop(&mut self) {
        // A device holds its parent, so the parent must release its kept device first.
        self.parent.kept.clear();
    }
}

/// The parent. It outlives its devices, and keeps what a device should have released.
struct Host {
    kept: Arc<Kept>,
}

impl Parent for Host {
    type OwnerModule = crate::LocalModule;
    type Type = Pinning;
    type Device = Pinner;

    const NAME: &'static CStr = c"mdev_pin_test";
    const API: DeviceApi = DeviceApi::Platform;
    const TYPES: &'static [Pinning] = &[Pinning];

    fn capacity(&self) -> u32 {
        // An existing device, and one that was removed but is kept.
        2
    }
}

/// The only type of device.
struct Pinning;

impl Type for Pinning {
    fn sysfs_name(&self) -> &'static CStr {
        c"pages"
    }

    fn description(&self) -> &'static CStr {
        c"pins pages on demand"
    }
}

/// The data of a device.
#[pin_data]
struct Pinner {
    /// The pinned pages. The lock is held while pages are pinned and while they are unpinned.
    #[pin]
    pages: Mutex<Pages>,
    /// How often the driver was notified to unpin pages.
    unmaps: AtomicU32,
    /// The misbehaviour, which ends when the device is closed.
    misbehaviour: AtomicU32,
    /// The number of resets that are still to fail.
    failing_resets: AtomicU32,
}

impl Pinner {
    fn misbehaves(&self, how: u32) -> bool {
        self.misbehaviour.load(Relaxed) & how != 0
    }
}

impl Device for Pinner {
    type Parent = Host;
    type Region = Number<0>;
    type Irq = NoIrqs;

    fn create(_: &Arc<Host>, _: &'static Pinning, _: Uuid) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            pages <- new_mutex!(Pages::new()),
            unmaps: AtomicU32::new(0),
            misbehaviour: AtomicU32::new(0),
            failing_resets: AtomicU32::new(0),
        })
    }

    fn region(&self, _: Number<0>) -> Option<Region<'_>> {
        None
    }

    fn vectors(&self, irq: NoIrqs) -> u32 {
        match irq {}
    }

    fn read(_: &Instance<Self>, _: Number<0>, _: Access) -> Result<u32> {
        Err(EINVAL)
    }

    fn write(_: &Instance<Self>, _: Number<0>, _: Access, _: u32) -> Result {
        Err(EINVAL)
    }

    fn reset(this: &Instance<Self>) -> Result {
        // Resets of a device do not run concurrently.
        match this.failing_resets.load(Relaxed).checked_sub(1) {
            Some(left) => {
                this.failing_resets.store(left, Relaxed);
                Err(EIO)
            }
            None => Ok(()),
        }
    }

    fn ioctl(this: &Instance<Self>, cmd: u32, arg: UserPtr) -> Result<isize> {
        requests::ioctl(this, cmd, arg)
    }

    fn closed(this: &Instance<Self>) {
        let pages = this.pages.lock().take();
        if this.misbehaves(KEEP_CLOSED) {
            this.parent().kept.keep(this, pages);
        }
        this.misbehaviour.store(0, Relaxed);
    }

    fn unmapped(this: &Instance<Self>, iova: u64, size: u64) {
        this.unmaps.fetch_add(1, Relaxed);
        if this.misbehaves(KEEP) {
            return;
        }
        let mut pages = this.pages.lock();
        pages.remove(iova, iova + (size - 1));
        if this.misbehaves(PIN_AGAIN) {
            let count = (size as usize / PAGE_SIZE).min(MAX_PAGES);
            if let Ok(again) = this.pin(iova, count, GuestAccess::ReadWrite) {
                let _ = pages.insert(again);
            }
        }
    }
}
