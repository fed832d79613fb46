// SPDX-License-Identifier: GPL-2.0

//! The functions of `include/linux/vfio.h` for drivers whose devices can use IOMMUFD.

use core::ptr::NonNull;

use kernel::{
    error::from_result,
    ffi::c_int,
    prelude::*, //
};
use kernel_ext::{
    bindings,
    iommufd::Context, //
};

use super::{
    context_of_open,
    id_in,
    InAttach,
    InBind,
    InUnbind, //
};
use crate::device::Device;

/// Returns the iommufd to which a device that does DMA is bound, or null.
///
/// # Safety
///
/// `device` is valid. The lock of its set is held, or the device stays open if it is open.
#[no_mangle]
unsafe extern "C" fn vfio_iommufd_device_ictx(
    device: *mut bindings::vfio_device,
) -> *mut bindings::iommufd_ctx {
    // SAFETY: By this function's contract.
    unsafe { context_of_open(Device::from_raw(device)) }
        .map_or(core::ptr::null_mut(), Context::as_ptr)
}

/// Returns the id of a device that is bound to `context`; `-ENOENT` if only another device of its
/// group is; `-ENODEV` otherwise.
///
/// # Safety
///
/// As for [`vfio_iommufd_device_ictx`]; `context` is null or valid.
#[no_mangle]
unsafe extern "C" fn vfio_iommufd_get_dev_id(
    device: *mut bindings::vfio_device,
    context: *mut bindings::iommufd_ctx,
) -> c_int {
    from_result(|| {
        let context = NonNull::new(context).ok_or(ENODEV)?;
        // SAFETY: By this function's contract.
        let id = unsafe { id_in(Device::from_raw(device), Context::from_raw(&context)) }?;
        Ok(id as c_int)
    })
}

/// Binds a device that does DMA to `context`, and stores the id of its object in `id`.
///
/// # Safety
///
/// Called by the driver in its callback `bind_iommufd`, with its arguments.
#[no_mangle]
unsafe extern "C" fn vfio_iommufd_physical_bind(
    device: *mut bindings::vfio_device,
    context: *mut bindings::iommufd_ctx,
    id: *mut u32,
) -> c_int {
    // SAFETY: By this function's contract.
    unsafe { bind(device, context, id, InBind::bind_physical) }
}

/// Undoes [`vfio_iommufd_physical_bind`].
///
/// # Safety
///
/// Called by the driver in its callback `unbind_iommufd`.
#[no_mangle]
unsafe extern "C" fn vfio_iommufd_physical_unbind(device: *mut bindings::vfio_device) {
    // SAFETY: By this function's contract.
    unsafe { InUnbind::new(Device::from_raw(device)) }.unbind_physical();
}

/// Attaches a device that does DMA to the object `id`, which this may change.
///
/// # Safety
///
/// Called by the driver in its callback `attach_ioas`, with its arguments.
#[no_mangle]
unsafe extern "C" fn vfio_iommufd_physical_attach_ioas(
    device: *mut bindings::vfio_device,
    id: *mut u32,
) -> c_int {
    // SAFETY: By this function's contract.
    let (device, id) = unsafe { (InAttach::new(Device::from_raw(device)), &mut *id) };
    from_result(|| device.attach_physical(id).map(|()| 0))
}

/// Detaches a device that does DMA.
///
/// # Safety
///
/// Called by the driver in its callback `detach_ioas`.
#[no_mangle]
unsafe extern "C" fn vfio_iommufd_physical_detach_ioas(device: *mut bindings::vfio_device) {
    // SAFETY: By this function's contract.
    unsafe { InAttach::new(Device::from_raw(device)) }.detach_physical();
}

/// Attaches requests of a device with `pasid` to the object `id`, which this may change.
///
/// # Safety
///
/// Called by the driver in its callback `pasid_attach_ioas`, with its arguments.
#[no_mangle]
unsafe extern "C" fn vfio_iommufd_physical_pasid_attach_ioas(
    device: *mut bindings::vfio_device,
    pasid: u32,
    id: *mut u32,
) -> c_int {
    // SAFETY: By this function's contract.
    let (device, id) = unsafe { (InAttach::new(Device::from_raw(device)), &mut *id) };
    from_result(|| device.attach_pasid(pasid, id).map(|()| 0))
}

/// Detaches requests of a device with `pasid`.
///
/// # Safety
///
/// Called by the driver in its callback `pasid_detach_ioas`.
#[no_mangle]
unsafe extern "C" fn vfio_iommufd_physical_pasid_detach_ioas(
    device: *mut bindings::vfio_device,
    pasid: u32,
) {
    // SAFETY: By this function's contract.
    unsafe { InAttach::new(Device::from_raw(device)) }.detach_pasid(pasid);
}

/// Gives the driver of an emulated device an access to `context`, and stores the id of its object
/// in `id`.
///
/// # Safety
///
/// Called by the driver in its callback `bind_iommufd`, with its arguments.
#[no_mangle]
unsafe extern "C" fn vfio_iommufd_emulated_bind(
    device: *mut bindings::vfio_device,
    context: *mut bindings::iommufd_ctx,
    id: *mut u32,
) -> c_int {
    // SAFETY: By this function's contract.
    unsafe { bind(device, context, id, InBind::bind_emulated) }
}

/// Undoes [`vfio_iommufd_emulated_bind`].
///
/// # Safety
///
/// Called by the driver in its callback `unbind_iommufd`.
#[no_mangle]
unsafe extern "C" fn vfio_iommufd_emulated_unbind(device: *mut bindings::vfio_device) {
    // SAFETY: By this function's contract.
    unsafe { InUnbind::new(Device::from_raw(device)) }.unbind_emulated();
}

/// Attaches an emulated device to the address space `id`.
///
/// # Safety
///
/// Called by the driver in its callback `attach_ioas`, with its arguments.
#[no_mangle]
unsafe extern "C" fn vfio_iommufd_emulated_attach_ioas(
    device: *mut bindings::vfio_device,
    id: *mut u32,
) -> c_int {
    // SAFETY: By this function's contract.
    let (device, id) = unsafe { (InAttach::new(Device::from_raw(device)), *id) };
    from_result(|| device.attach_emulated(id).map(|()| 0))
}

/// Detaches an emulated device.
///
/// # Safety
///
/// Called by the driver in its callback `detach_ioas`.
#[no_mangle]
unsafe extern "C" fn vfio_iommufd_emulated_detach_ioas(device: *mut bindings::vfio_device) {
    // SAFETY: By this function's contract.
    unsafe { InAttach::new(Device::from_raw(device)) }.detach_emulated();
}

/// Binds `device` by `how`, and stores the id of its object in `id`.
///
/// # Safety
///
/// The arguments are those of a driver's callback `bind_iommufd`, which is called.
unsafe fn bind<'a>(
    device: *mut bindings::vfio_device,
    context: *mut bindings::iommufd_ctx,
    id: *mut u32,
    how: fn(InBind<'a>, &Context) -> Result<u32>,
) -> c_int {
    // SAFETY: By this function's contract.
    let (device, id) = unsafe { (InBind::new(Device::from_raw(device)), &mut *id) };
    from_result(|| {
        let context = NonNull::new(context).ok_or(EINVAL)?;
        // SAFETY: By this function's contract.
        let context = unsafe { Context::from_raw(&context) };
        *id = how(device, context)?;
        Ok(0)
    })
}
