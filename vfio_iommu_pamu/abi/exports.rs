// SPDX-License-Identifier: GPL-2.0

//! The functions of `include/vfio_pamu.h`, which drivers of devices behind a software PAMU call.

use core::ptr::NonNull;

use kernel::{
    device::Device,
    error::from_result,
    ffi::{
        c_int,
        c_void, //
    },
    prelude::*,
    sync::Arc,
    types::ForeignOwnable, //
};

use kernel_ext::{
    bindings,
    eventfd::EventFd, //
};

use crate::{
    bank::BankUse,
    software::{
        Interrupt,
        Master,
        Vector, //
    },
};

/// The interrupt of a device.
struct Msi {
    bank: BankUse,
    vector: Vector,
}

/// Handles an interrupt: signals an eventfd.
struct Signal(EventFd);

impl Interrupt for Signal {
    fn interrupt(&self) {
        self.0.signal();
    }
}

impl Msi {
    /// Allocates an interrupt vector of `bank` for a device.
    fn new(dev: &Device, bank: Option<u32>, fd: i32) -> Result<Self> {
        let event = EventFd::from_fd(fd)?;
        let bank = BankUse::new(dev, bank)?;
        let handler = Arc::new(Signal(event), GFP_KERNEL_ACCOUNT)?;
        let vector = Vector::new(bank.bank(), handler)?;
        Ok(Self { bank, vector })
    }
}

/// Accesses memory as a device.
///
/// # Safety
///
/// `data` points to `size` bytes, which only this function accesses during the call.
#[no_mangle]
unsafe extern "C" fn vfio_pamu_dma(
    liodn: u16,
    address: u64,
    data: *mut c_void,
    size: usize,
    write: bool,
) -> c_int {
    from_result(|| {
        let data = NonNull::new(data.cast::<u8>()).ok_or(EINVAL)?;
        let master = Master::with_liodn(liodn)?;
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
unsafe extern "C" fn vfio_pamu_msi_get(
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
            unsafe { address.write(msi.bank.address()) };
            // SAFETY: By the contract of this function.
            unsafe { data.write(msi.vector.data()) };
            msi.into_foreign()
        }
        Err(e) => e.to_ptr(),
    }
}

/// Frees an interrupt.
///
/// # Safety
///
/// `msi` was returned by `vfio_pamu_msi_get`, and the caller doesn't use it again.
#[no_mangle]
unsafe extern "C" fn vfio_pamu_msi_put(msi: *mut c_void) {
    // SAFETY: By the contract of this function `into_foreign` returned the pointer.
    drop(unsafe { <KBox<Msi> as ForeignOwnable>::from_foreign(msi) });
}
