// SPDX-License-Identifier: GPL-2.0

//! The open devices of a container whose drivers can be asked to give pages back.

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

/// The open devices of a container whose drivers have a `dma_unmap` callback, hence may pin pages.
///
/// They are linked by the field that the core has for that, so that adding one takes no memory.
#[pin_data]
pub struct UserDevices {
    #[pin]
    first: Mutex<Link>,
    /// Whether there is one; changes with the mutex held.
    any: AtomicFlag,
}

/// The next device of a list, or null.
///
/// # Invariants
///
/// The core has passed the device to `register_device`, and `unregister_device` for it has not returned. So
/// the device is valid, as long as the list's mutex is held. Its `iommu_entry.next` is a link, too.
struct Link(*mut bindings::vfio_device);

// SAFETY: The devices belong to no thread.
unsafe impl Send for Link {}

impl Link {
    /// No link, with its lock. This isn't compiled into the modules that call it: the name of the lock would
    /// be theirs, and its class ours, and lockdep warns when a class gets another name.
    #[inline(never)]
    fn none() -> impl PinInit<Mutex<Self>> {
        new_mutex!(
            Self(core::ptr::null_mut()),
            "kernel_ext::UserDevices::first"
        )
    }
}

impl UserDevices {
    /// No devices.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            // INVARIANT: There is no device.
            first <- Link::none(),
            any: AtomicFlag::new(false),
        })
    }

    /// Whether there is a device. Takes no lock.
    pub fn any(&self) -> bool {
        self.any.load(Relaxed)
    }

    /// Locks the list: meanwhile no device of it is closed.
    pub fn lock(&self) -> LockedDevices<'_> {
        LockedDevices(self.first.lock())
    }

    /// Adds a device, if its driver has the callback.
    ///
    /// # Safety
    ///
    /// The core calls `register_device` with it now, and will call `unregister_device`, where
    /// [`remove`](Self::remove) is called.
    pub(super) unsafe fn add(&self, device: NonNull<bindings::vfio_device>) {
        // SAFETY: The device is valid by the contract of this function.
        if unsafe { dma_unmap_op(device) }.is_none() {
            return;
        }
        let mut first = self.first.lock();
        // SAFETY: As above. The field is for the use of the container's backend, and the mutex is held.
        unsafe { (*device.as_ptr()).iommu_entry.next = first.0.cast() };
        // INVARIANT: The device is registered now, and points to the former first one.
        first.0 = device.as_ptr();
        self.any.store(true, Relaxed);
    }

    /// Takes a device out, if it is in the list.
    pub(super) fn remove(&self, device: NonNull<bindings::vfio_device>) {
        let mut first = self.first.lock();
        let mut place = &raw mut first.0;
        loop {
            // SAFETY: It points to the first link, or to that in a device of the list, which is valid by the
            // invariant of `Link`.
            let found = unsafe { *place };
            if found.is_null() {
                return;
            }
            // SAFETY: A device of the list is valid, by the invariant of `Link`.
            let next = unsafe { &raw mut (*found).iommu_entry.next };
            if found == device.as_ptr() {
                // SAFETY: Both are valid, as above.
                // INVARIANT: What follows the device follows what was before it.
                unsafe { *place = (*next).cast() };
                break;
            }
            place = next.cast();
        }
        self.any.store(!first.0.is_null(), Relaxed);
    }
}

/// The devices of a container, none of which is closed meanwhile.
pub struct LockedDevices<'a>(Guard<'a, Link, MutexBackend>);

impl LockedDevices<'_> {
    /// The devices.
    pub fn iter(&self) -> impl Iterator<Item = UserDevice<'_>> {
        let mut next = NonNull::new(self.0 .0);
        core::iter::from_fn(move || {
            let device = next?;
            // SAFETY: The device is in the list, whose mutex is held; so it is valid, and its link too.
            next = NonNull::new(unsafe { (*device.as_ptr()).iommu_entry.next }.cast());
            // INVARIANT: The mutex is held for as long as the list is borrowed.
            Some(UserDevice(device, PhantomData))
        })
    }
}

/// An open device of a container.
///
/// # Invariants
///
/// The device is valid for `'a`, and its driver has a `dma_unmap` callback.
pub struct UserDevice<'a>(NonNull<bindings::vfio_device>, PhantomData<&'a Device>);

impl<'a> UserDevice<'a> {
    /// Asks the driver to unpin what it has pinned of `size` bytes from `iova` on.
    ///
    /// It calls `vfio_unpin_pages()`, so the caller holds no lock which that takes.
    pub fn dma_unmap(&self, iova: u64, size: u64) {
        // SAFETY: The device is valid by the type invariant.
        if let Some(dma_unmap) = unsafe { dma_unmap_op(self.0) } {
            // SAFETY: As above; this is the callback that its driver gave for it.
            unsafe { dma_unmap(self.0.as_ptr(), iova, size) };
        }
    }

    /// The device that the driver is bound to, for messages.
    pub fn dev(&self) -> &'a Device {
        // SAFETY: The device is valid by the type invariant, and keeps what it is bound to.
        unsafe { Device::from_raw((*self.0.as_ptr()).dev) }
    }
}

/// The `dma_unmap` callback of the device's driver, if it has one.
///
/// # Safety
///
/// The device is valid.
unsafe fn dma_unmap_op(
    device: NonNull<bindings::vfio_device>,
) -> Option<unsafe extern "C" fn(*mut bindings::vfio_device, u64, u64)> {
    // SAFETY: By the contract of this function.
    let ops = unsafe { (*device.as_ptr()).ops };
    // SAFETY: The core sets the table of a device before it hands the device out, and it outlives it.
    unsafe { (*ops).dma_unmap }
}
