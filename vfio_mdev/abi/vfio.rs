// SPDX-License-Identifier: GPL-2.0

//! The functions of `vfio.ko` that drivers need.
//!
//! Only generic code refers to these functions, and it is compiled into the driver that uses it.
//! Therefore the driver depends on `vfio.ko`, like drivers in C, and the bus does not.

use core::marker::PhantomData;

use kernel::{
    error::to_result,
    ffi::{
        c_int,
        c_void, //
    },
    prelude::*, //
};
use kernel_ext::bindings;

use crate::driver::{
    Device,
    Index, //
};

/// The functions with which an open device accesses the memory of its process.
pub(super) struct DmaCalls {
    pub(super) pin: unsafe extern "C" fn(
        *mut bindings::vfio_device,
        bindings::dma_addr_t,
        c_int,
        c_int,
        *mut *mut bindings::page,
    ) -> c_int,
    pub(super) unpin: unsafe extern "C" fn(*mut bindings::vfio_device, bindings::dma_addr_t, c_int),
    pub(super) rw: unsafe extern "C" fn(
        *mut bindings::vfio_device,
        bindings::dma_addr_t,
        *mut c_void,
        usize,
        bool,
    ) -> c_int,
}

/// The functions, as the driver of `D` refers to them.
pub(super) struct Calls<D>(PhantomData<D>);

impl<D: Device> Calls<D> {
    pub(super) const DMA: &'static DmaCalls = &DmaCalls {
        pin: bindings::vfio_pin_pages,
        unpin: bindings::vfio_unpin_pages,
        rw: bindings::vfio_dma_rw,
    };

    /// Determines the next migration state on the way from one state to another.
    pub(super) const NEXT_STATE: unsafe extern "C" fn(
        *mut bindings::vfio_device,
        bindings::vfio_device_mig_state,
        bindings::vfio_device_mig_state,
        *mut bindings::vfio_device_mig_state,
    ) -> c_int = bindings::vfio_mig_get_next_state;
}

/// Returns the size of the data that follow a `VFIO_DEVICE_SET_IRQS` request, in bytes. The request
/// is for an interrupt type with `vectors` vectors.
///
/// # Errors
///
/// `EINVAL` if the request is malformed.
pub(crate) fn irq_set_data_size<D: Device>(
    header: &mut bindings::vfio_irq_set,
    vectors: u32,
) -> Result<usize> {
    let mut size = 0;
    // SAFETY: Both pointers are valid.
    to_result(unsafe {
        bindings::vfio_set_irqs_validate_and_prepare(
            header,
            vectors as c_int,
            D::Irq::COUNT as c_int,
            &raw mut size,
        )
    })?;
    Ok(size)
}
