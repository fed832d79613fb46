// SPDX-License-Identifier: GPL-2.0

//! Drivers of platform devices that userspace uses through VFIO.

use core::{
    marker::PhantomData,
    sync::atomic::{
        AtomicBool,
        Ordering, //
    }, //
};

use kernel::{
    device::{
        self,
        Bound,
        Core, //
    },
    error::to_result,
    platform,
    prelude::*,
    sync::aref::ARef, //
};

use super::{
    Device,
    Operations, //
};

use crate::bindings;

/// A device that userspace can open. Dropping it unregisters the device, and waits until it has no
/// users.
///
/// # Invariants
///
/// The device is registered if `registered` is set.
pub struct Registration<T: Operations> {
    device: ARef<Device<T>>,
    registered: AtomicBool,
}

impl<T: Operations> Registration<T> {
    /// Registers a device that has no IOMMU group of its own; it gets a software group.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and the errors of sysfs.
    ///
    /// # Safety
    ///
    /// The device was not registered before. The device below it stays bound until `unregister`.
    unsafe fn emulated(device: ARef<Device<T>>) -> Result<Self> {
        // SAFETY: By this function's contract; `drop` calls `unregister`.
        to_result(unsafe { bindings::vfio_register_emulated_iommu_dev(device.as_ptr()) })?;
        // INVARIANT: The device was just registered.
        Ok(Self {
            device,
            registered: AtomicBool::new(true),
        })
    }

    /// Unregisters the device if it is registered, and waits until it has no users.
    fn unregister(&self) {
        if self.registered.swap(false, Ordering::Relaxed) {
            // SAFETY: By the type invariant the device is registered. The swap returns true only
            // once.
            unsafe { bindings::vfio_unregister_group_dev(self.device.as_ptr()) };
        }
    }
}

impl<T: Operations> Drop for Registration<T> {
    fn drop(&mut self) {
        self.unregister();
    }
}

/// The data of a platform device.
pub trait Probe: Operations {
    /// Creates the data of `dev`.
    ///
    /// # Errors
    ///
    /// The driver does not bind to `dev`, and the error is logged.
    fn probe(dev: &device::Device<Bound>) -> impl PinInit<Self, Error>;
}

/// A driver of platform devices. Userspace can open them while they are bound to the driver. They
/// have no IOMMU group of their own.
///
/// # Examples
///
/// ```ignore
/// #[pin_data]
/// struct Module {
///     #[pin]
///     _driver: driver::Registration<platform::Adapter<PlatformDriver<Engine>>>,
/// }
/// ```
pub struct PlatformDriver<T>(PhantomData<T>);

impl<T: Probe> platform::Driver for PlatformDriver<T> {
    type IdInfo = ();
    type Data<'bound> = Registration<T>;

    fn probe<'bound>(
        dev: &'bound platform::Device<Core<'_>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        pin_init::pin_init_scope(move || {
            let dev: &platform::Device<Bound> = dev;
            let dev: &device::Device<Bound> = dev.as_ref();
            let device = Device::new(dev, T::probe(dev))?;
            // SAFETY: The device is new. The driver core calls `unbind` before it unbinds `dev`.
            Ok(unsafe { Registration::emulated(device) })
        })
    }

    /// Unregisters the device from VFIO, which removes it from its software group. After this, the
    /// driver core expects the device to be in the group that it was in before it was bound.
    fn unbind<'bound>(_dev: &'bound platform::Device<Core<'_>>, this: Pin<&Self::Data<'bound>>) {
        this.unregister();
    }
}
