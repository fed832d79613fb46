// SPDX-License-Identifier: GPL-2.0

//! The callbacks for IOMMUFD that most drivers use: `vfio_iommufd_physical_*()` for devices that do
//! DMA, and `vfio_iommufd_emulated_*()` for devices whose driver accesses the mapped memory.
//!
//! The field `iommufd_device` of the C structure points to a [`BoundDevice`] while the device is
//! bound, and `iommufd_access` to an [`Access`]. No other module uses the fields.

mod exports;

use core::{
    marker::PhantomData,
    ptr::NonNull,
    sync::atomic::{
        AtomicPtr,
        Ordering, //
    }, //
};

use kernel::{
    ffi::c_void,
    prelude::*,
    types::ForeignOwnable, //
};
use kernel_ext::{
    bindings,
    iommu::Group as IommuGroup,
    iommufd::{
        Access,
        BoundDevice,
        Context,
        Unmap, //
    }, //
};

use super::Device;

/// Tells the driver of a device when memory is unmapped.
pub(super) struct Notified;

impl Unmap for Notified {
    type Device = bindings::vfio_device;

    unsafe fn unmap(device: NonNull<bindings::vfio_device>, iova: u64, size: u64) {
        // SAFETY: By this function's contract.
        let device = unsafe { Device::from_raw(device.as_ptr()) };
        if let Some(unmap) = device.ops().dma_unmap {
            // SAFETY: The device is valid, and the driver accepts the call while it is bound.
            unsafe { unmap(device.as_ptr(), iova, size) }
        }
    }
}

/// A field that is null or the foreign form of a `Pin<KBox<T>>`.
struct Field<'a, T>(&'a AtomicPtr<c_void>, PhantomData<T>);

impl<'a, T> Field<'a, T> {
    /// # Safety
    ///
    /// The value stays in the field for all of `'a`, or is null.
    unsafe fn borrow(&self) -> Option<&'a T> {
        let value = NonNull::new(self.0.load(Ordering::Acquire))?;
        // SAFETY: By the description of the type and this function's contract.
        Some(unsafe { Pin::<KBox<T>>::borrow(value.as_ptr()) }.get_ref())
    }

    fn is_set(&self) -> bool {
        !self.0.load(Ordering::Relaxed).is_null()
    }

    fn set(&self, value: Pin<KBox<T>>) {
        self.0.store(value.into_foreign(), Ordering::Release);
    }

    /// Removes the value and drops it.
    ///
    /// # Safety
    ///
    /// The value is not borrowed.
    unsafe fn clear(&self) {
        let value = self.0.swap(core::ptr::null_mut(), Ordering::AcqRel);
        if !value.is_null() {
            // SAFETY: By the description of the type and this function's contract.
            drop(unsafe { Pin::<KBox<T>>::from_foreign(value) });
        }
    }
}

impl Device {
    fn bound_field(&self) -> Field<'_, BoundDevice> {
        // SAFETY: Only this module uses the field, and always atomically.
        let field =
            unsafe { AtomicPtr::from_ptr((&raw mut (*self.as_ptr()).iommufd_device).cast()) };
        Field(field, PhantomData)
    }

    fn access_field(&self) -> Field<'_, Access<Notified>> {
        // SAFETY: As above.
        let field =
            unsafe { AtomicPtr::from_ptr((&raw mut (*self.as_ptr()).iommufd_access).cast()) };
        Field(field, PhantomData)
    }
}

/// A device in the callback `bind_iommufd` of its driver.
///
/// # Invariants
///
/// The lock of the device's set is held, so the fields change only through this value. The driver
/// calls `unbind_iommufd` after the device is closed.
struct InBind<'a>(&'a Device);

impl<'a> InBind<'a> {
    /// # Safety
    ///
    /// For all of `'a` the device is in the callback.
    unsafe fn new(device: &'a Device) -> Self {
        // INVARIANT: By this function's contract.
        Self(device)
    }

    /// Binds a device that does DMA. Returns the id of its object.
    ///
    /// # Errors
    ///
    /// Returns `EBUSY` if the device is bound; or an error of [`BoundDevice::bind`].
    fn bind_physical(self, context: &Context) -> Result<u32> {
        if self.0.bound_field().is_set() {
            return Err(EBUSY);
        }
        // SAFETY: The parent is bound to its driver while the device is open. By the type invariant
        // the device is unbound from the iommufd when it is closed.
        let bound = unsafe { BoundDevice::bind(context, self.0.parent()) }?;
        let id = bound.id();
        self.0.bound_field().set(bound);
        Ok(id)
    }

    /// Gives the driver of an emulated device an access to `context`. Returns the id of its object.
    ///
    /// # Errors
    ///
    /// Returns `EBUSY` if the device has one; `ENOMEM`.
    fn bind_emulated(self, context: &Context) -> Result<u32> {
        if self.0.access_field().is_set() {
            return Err(EBUSY);
        }
        let device = NonNull::new(self.0.as_ptr()).ok_or(EINVAL)?;
        // SAFETY: By the type invariant `unbind_emulated` destroys the access when the device is
        // closed. The driver keeps the device until its callbacks have returned.
        let access = unsafe { Access::<Notified>::new(context, device) }?;
        let id = access.id();
        self.0.access_field().set(access);
        Ok(id)
    }
}

/// A device in the callback `unbind_iommufd` of its driver.
///
/// # Invariants
///
/// The lock of the device's set is held, so the fields change only through this value. The device
/// is closed.
struct InUnbind<'a>(&'a Device);

impl<'a> InUnbind<'a> {
    /// # Safety
    ///
    /// For all of `'a` the device is in the callback.
    unsafe fn new(device: &'a Device) -> Self {
        // INVARIANT: By this function's contract.
        Self(device)
    }

    /// Undoes [`InBind::bind_physical`].
    fn unbind_physical(self) {
        // SAFETY: By the type invariant nothing borrows the value.
        unsafe { self.0.bound_field().clear() };
    }

    /// Undoes [`InBind::bind_emulated`].
    fn unbind_emulated(self) {
        // The driver's callback may unpin pages until this returns, and finds the access for that
        // in the field.
        // SAFETY: By the type invariant the field changes only below.
        if let Some(access) = unsafe { self.0.access_field().borrow() } {
            access.destroy();
        }
        // SAFETY: By the type invariant, and no callback uses the access any more.
        unsafe { self.0.access_field().clear() };
    }
}

/// A device in a callback of its driver that attaches or detaches it.
///
/// # Invariants
///
/// The lock of the device's set is held, so the fields do not change.
struct InAttach<'a>(&'a Device);

impl<'a> InAttach<'a> {
    /// # Safety
    ///
    /// For all of `'a` the device is in one of the callbacks.
    unsafe fn new(device: &'a Device) -> Self {
        // INVARIANT: By this function's contract.
        Self(device)
    }

    fn bound(&self) -> Option<&BoundDevice> {
        // SAFETY: By the type invariant.
        unsafe { self.0.bound_field().borrow() }
    }

    fn access(&self) -> Option<&Access<Notified>> {
        // SAFETY: As above.
        unsafe { self.0.access_field().borrow() }
    }

    /// Attaches a device that does DMA, as [`BoundDevice::attach`] does.
    ///
    /// # Errors
    ///
    /// Returns `EINVAL` if the device is not bound.
    fn attach_physical(self, id: &mut u32) -> Result {
        self.bound().ok_or(EINVAL)?.attach(id)
    }

    /// Detaches a device that does DMA.
    fn detach_physical(self) {
        if let Some(bound) = self.bound() {
            bound.detach();
        }
    }

    /// Attaches requests with `pasid`, as [`BoundDevice::attach_pasid`] does.
    ///
    /// # Errors
    ///
    /// Returns `EINVAL` if the device is not bound.
    fn attach_pasid(self, pasid: u32, id: &mut u32) -> Result {
        self.bound().ok_or(EINVAL)?.attach_pasid(pasid, id)
    }

    /// Detaches requests with `pasid`.
    fn detach_pasid(self, pasid: u32) {
        if let Some(bound) = self.bound() {
            bound.detach_pasid(pasid);
        }
    }

    /// Attaches an emulated device to the address space `ioas`, as [`Access::attach`] does.
    ///
    /// # Errors
    ///
    /// Returns `EINVAL` if the device is not bound.
    fn attach_emulated(self, ioas: u32) -> Result {
        self.access().ok_or(EINVAL)?.attach(ioas)
    }

    /// Detaches an emulated device.
    fn detach_emulated(self) {
        if let Some(access) = self.access() {
            access.detach();
        }
    }
}

/// Returns the iommufd to which an open device is bound, if it does DMA.
///
/// # Safety
///
/// For all of `'a`, the lock of the device's set is held, or the device stays open if it is open.
unsafe fn context_of_open<'a>(device: &'a Device) -> Option<&'a Context> {
    // SAFETY: The field is set before the device is opened and cleared after it is closed, with the
    // set's lock held.
    Some(unsafe { device.bound_field().borrow() }?.context())
}

/// Returns the id of an open device's object if the device is bound to `context`.
///
/// # Errors
///
/// Returns `ENOENT` if another device of its group is bound to `context`, otherwise `ENODEV`.
///
/// # Safety
///
/// As for [`context_of_open`].
unsafe fn id_in(device: &Device, context: &Context) -> Result<u32> {
    // SAFETY: By this function's contract.
    match unsafe { device.bound_field().borrow() } {
        Some(bound) if bound.context() == context => Ok(bound.id()),
        _ => {
            // SAFETY: The driver of an open device stays bound.
            let parent = unsafe { device.parent().as_bound() };
            let group = IommuGroup::of(parent).ok_or(ENODEV)?;
            Err(if context.has_group(&group) {
                ENOENT
            } else {
                ENODEV
            })
        }
    }
}

/// Returns the access of a device to an iommufd, if it has one.
///
/// # Safety
///
/// The device is closed; or stays open for all of `'a`; or its driver is in a callback that an
/// unmap has called, for all of `'a`.
pub(super) unsafe fn access_of_open<'a>(device: &'a Device) -> Option<&'a Access<Notified>> {
    // SAFETY: The field is set before the device is opened. It is cleared after the device is
    // closed, when no callback runs any more.
    unsafe { device.access_field().borrow() }
}
