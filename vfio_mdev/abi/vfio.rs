// SPDX-License-Identifier: GPL-2.0

//! What drivers need of `vfio.ko`.
//!
//! The functions are only named in generic code, which is compiled into the driver that uses it. So
//! it is the driver that needs `vfio.ko`, as for drivers in C, and not the bus.

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

/// The functions by which an open device reaches the memory of its program.
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

/// The functions, named in the driver of `D`.
pub(super) struct Calls<D>(PhantomData<D>);

impl<D: Device> Calls<D> {
    pub(super) const DMA: &'static DmaCalls = &DmaCalls {
        pin: bindings::vfio_pin_pages,
        unpin: bindings::vfio_unpin_pages,
        rw: bindings::vfio_dma_rw,
    };

    /// Which migration state comes next on the way from one to another.
    pub(super) const NEXT_STATE: unsafe extern "C" fn(
        *mut bindings::vfio_device,
        bindings::vfio_device_mig_state,
        bindings::vfio_device_mig_state,
        *mut bindings::vfio_device_mig_state,
    ) -> c_int = bindings::vfio_mig_get_next_state;
}

/// Bytes of data behind a `VFIO_DEVICE_SET_IRQS` request of a kind with `vectors` vectors.
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
