// SPDX-License-Identifier: GPL-2.0

//! The functions of `include/pamu_sim.h`, which drivers of devices behind a software PAMU call.

use core::ptr::NonNull;

use kernel::{
    device::Device,
    error::from_result,
    ffi::{
        c_int,
        c_void, //
    },
    prelude::*,
    types::ForeignOwnable, //
};

use kernel_ext::bindings;

use crate::{
    bus_master::BusMaster,
    msi::Msi, //
};

/// Accesses memory as a device.
///
/// # Safety
///
/// `data` points to `size` bytes, which only this function accesses during the call.
#[no_mangle]
unsafe extern "C" fn pamu_sim_dma(
    liodn: u16,
    address: u64,
    data: *mut c_void,
    size: usize,
    write: bool,
) -> c_int {
    from_result(|| {
        let data = NonNull::new(data.cast::<u8>()).ok_or(EINVAL)?;
        let master = BusMaster::with_liodn(liodn)?;
        if write {
            // SAFETY: By the contract of this function.
            let data = unsafe { core::slice::from_raw_parts(data.as_ptr(), size) };
            master.write(address, data)?;
        } else {
            // SAFETY: By the contract of this function.
            let data = unsafe { core::slice::from_raw_parts_mut(data.as_ptr(), size) };
            master.read(address, data)?;
        }
        Ok(0)
    })
}

/// Allocates an interrupt for a device.
///
/// # Safety
///
/// `dev` is a valid device. Only this function accesses `address` and `data` during the call.
#[no_mangle]
unsafe extern "C" fn pamu_sim_msi_get(
    dev: *mut bindings::device,
    bank: c_int,
    fd: c_int,
    address: *mut u64,
    data: *mut u32,
) -> *mut c_void {
    // SAFETY: By the contract of this function.
    let dev = unsafe { Device::from_raw(dev) };
    let msi = Msi::new(dev, u32::try_from(bank).ok(), fd)
        .and_then(|msi| Ok(KBox::new(msi, GFP_KERNEL_ACCOUNT)?));
    match msi {
        Ok(msi) => {
            // SAFETY: By the contract of this function.
            unsafe { address.write(msi.address()) };
            // SAFETY: By the contract of this function.
            unsafe { data.write(msi.data()) };
            msi.into_foreign()
        }
        Err(e) => e.to_ptr(),
    }
}

/// Frees an interrupt.
///
/// # Safety
///
/// `msi` was returned by `pamu_sim_msi_get`, and the caller doesn't use it again.
#[no_mangle]
unsafe extern "C" fn pamu_sim_msi_put(msi: *mut c_void) {
    // SAFETY: By the contract of this function `into_foreign` returned the pointer.
    drop(unsafe { <KBox<Msi> as ForeignOwnable>::from_foreign(msi) });
}
