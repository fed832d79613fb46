// SPDX-License-Identifier: GPL-2.0

//! The open devices of a container whose drivers can be asked to unpin pages.

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};

use kernel::{
    device::Device,
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            AtomicFlag,
            Relaxed, //
        },
        lock::{
            mutex::MutexBackend,
            Guard, //
        },
        Mutex, //
    },
};

use crate::bindings;

/// The open devices of a container whose drivers have a `dma_unmap` callback, and so may pin pages.
///
/// They are linked through the field that the core provides for backends, so adding a device
/// allocates no memory.
#[pin_data]
pub struct DeviceList {
    #[pin]
    first: Mutex<Link>,
    /// Whether the list has a device. Changed with the mutex held.
    any: AtomicFlag,
}

/// The next device of a list, or null.
///
/// # Invariants
///
/// The core has passed the device to `register_device`, and `unregister_device` for it has not
/// returned. So the device is valid as long as the list's mutex is held. Its `iommu_entry.next` is
/// also a link.
struct Link(*mut bindings::vfio_device);

// SAFETY: The devices are not bound to a thread.
unsafe impl Send for Link {}

impl Link {
    /// Returns a null link with its lock. This function isn't inlined into the modules that call
    /// it: the name of the lock would be in the module and its class in this one, and lockdep warns
    /// when a class gets another name.
    #[inline(never)]
    fn none() -> impl PinInit<Mutex<Self>> {
        new_mutex!(Self(core::ptr::null_mut()), "kernel_ext::DeviceList::first")
    }
}

/// Returns the place of the link from `device` to the next device. Only the container's backend
/// uses the field, and its mutex guards it.
///
/// # Safety
///
/// `device` is valid.
unsafe fn link(device: *mut bindings::vfio_device) -> *mut *mut bindings::vfio_device {
    #[cfg(CONFIG_VFIO_GROUP)]
    // SAFETY: By this function's contract.
    let link = unsafe { &raw mut (*device).iommu_entry.next };
    #[cfg(not(CONFIG_VFIO_GROUP))]
    // SAFETY: As above. The device of a `struct vfio_device` has no driver that uses the field.
    let link = unsafe { &raw mut (*device).device.driver_data };
    link.cast()
}

impl DeviceList {
    /// Returns an empty list.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            // INVARIANT: There is no device.
            first <- Link::none(),
            any: AtomicFlag::new(false),
        })
    }

    /// Returns whether there is a device. Takes no lock.
    pub fn any(&self) -> bool {
        self.any.load(Relaxed)
    }

    /// Locks the list. No device of the list is closed while it is locked.
    pub fn lock(&self) -> DeviceListGuard<'_> {
        DeviceListGuard(self.first.lock())
    }

    /// Adds a device, if its driver has the callback.
    ///
    /// # Safety
    ///
    /// The caller is the core's call of `register_device` with the device. The core will call
    /// `unregister_device`, which calls [`remove`](Self::remove).
    pub(super) unsafe fn add(&self, device: NonNull<bindings::vfio_device>) {
        // SAFETY: The device is valid by the contract of this function.
        if unsafe { dma_unmap_op(device) }.is_none() {
            return;
        }
        let mut first = self.first.lock();
        // SAFETY: As above, and the mutex is held.
        unsafe { *link(device.as_ptr()) = first.0 };
        // INVARIANT: The device is registered now, and its link is the previous first one.
        first.0 = device.as_ptr();
        self.any.store(true, Relaxed);
    }

    /// Removes a device that [`add`](Self::add) was called with.
    ///
    /// If its driver does not have the callback, this takes no lock: the lock is held while other
    /// drivers are called, and the close of such a device must not wait for them.
    ///
    /// # Safety
    ///
    /// `device` is valid.
    pub(super) unsafe fn remove(&self, device: NonNull<bindings::vfio_device>) {
        // SAFETY: By the contract of this function.
        if unsafe { dma_unmap_op(device) }.is_none() {
            return;
        }
        let mut first = self.first.lock();
        let mut place = &raw mut first.0;
        loop {
            // SAFETY: `place` is the first link, or that in a device of the list. By the invariant
            // of `Link` the device is valid.
            let found = unsafe { *place };
            if found.is_null() {
                return;
            }
            // SAFETY: By the invariant of `Link` a device of the list is valid.
            let next = unsafe { link(found) };
            if found == device.as_ptr() {
                // SAFETY: Both are valid, as above.
                // INVARIANT: The successor of the device becomes the successor of its predecessor.
                unsafe { *place = *next };
                break;
            }
            place = next;
        }
        self.any.store(!first.0.is_null(), Relaxed);
    }
}

/// The locked devices of a container. None of them is closed while this exists.
pub struct DeviceListGuard<'a>(Guard<'a, Link, MutexBackend>);

impl DeviceListGuard<'_> {
    /// Iterates over the devices.
    pub fn iter(&self) -> impl Iterator<Item = ListedDevice<'_>> {
        let mut next = NonNull::new(self.0 .0);
        core::iter::from_fn(move || {
            let device = next?;
            // SAFETY: The device is in the list and the mutex is held, so the device and its link
            // are valid.
            next = NonNull::new(unsafe { *link(device.as_ptr()) });
            // INVARIANT: The mutex is held as long as the list is borrowed.
            Some(ListedDevice(device, PhantomData))
        })
    }
}

/// An open device of a container.
///
/// # Invariants
///
/// The device is valid for `'a`, and its driver has a `dma_unmap` callback.
pub struct ListedDevice<'a>(NonNull<bindings::vfio_device>, PhantomData<&'a Device>);

impl<'a> ListedDevice<'a> {
    /// Asks the driver to unpin the pages that it has pinned in the `size` bytes starting at
    /// `iova`.
    ///
    /// The driver calls `vfio_unpin_pages()`, so the caller must not hold a lock that
    /// `vfio_unpin_pages()` takes.
    pub fn dma_unmap(&self, iova: u64, size: u64) {
        // SAFETY: The device is valid by the type invariant.
        if let Some(dma_unmap) = unsafe { dma_unmap_op(self.0) } {
            // SAFETY: As above; this is the callback of the device's driver.
            unsafe { dma_unmap(self.0.as_ptr(), iova, size) };
        }
    }

    /// Returns the device that the driver is bound to, for log messages.
    pub fn dev(&self) -> &'a Device {
        // SAFETY: By the type invariant the device is valid, and it keeps a reference to the device
        // that it is bound to.
        unsafe { Device::from_raw((*self.0.as_ptr()).dev) }
    }
}

/// Returns the `dma_unmap` callback of the device's driver, if it has one.
///
/// # Safety
///
/// The device is valid.
unsafe fn dma_unmap_op(
    device: NonNull<bindings::vfio_device>,
) -> Option<unsafe extern "C" fn(*mut bindings::vfio_device, u64, u64)> {
    // SAFETY: By the contract of this function.
    let ops = unsafe { (*device.as_ptr()).ops };
    // SAFETY: The core sets the operations of a device before it passes the device on, and they
    // outlive the device.
    unsafe { (*ops).dma_unmap }
}
