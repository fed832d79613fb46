// SPDX-License-Identifier: GPL-2.0

//! A map from numbers to numbers that is looked up without a lock.
//!
//! C header: [`include/linux/xarray.h`](srctree/include/linux/xarray.h)

use core::ffi::c_void;

use kernel::{
    error::to_result,
    prelude::*,
    sync::rcu,
    types::Opaque, //
};

use crate::{
    bindings,
    gfp::Gfp, //
};

/// A map from 32-bit numbers to 32-bit numbers.
///
/// Lookups take no lock. Changes take a spinlock with interrupts disabled: all of this may be called
/// from any context. The map has memory of its own only while something is in it, so an empty one can
/// be forgotten; one that isn't empty leaks.
///
/// # Invariants
///
/// All entries are values.
#[pin_data]
pub struct ValueMap {
    #[pin]
    xa: Opaque<bindings::xarray>,
}

// SAFETY: The array has its lock, and holds nothing but numbers.
unsafe impl Send for ValueMap {}
// SAFETY: As above.
unsafe impl Sync for ValueMap {}

impl ValueMap {
    /// An empty map.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: The array is pinned. INVARIANT: It is empty.
            xa <- Opaque::ffi_init(|xa| unsafe { bindings::kernel_ext_xa_init(xa) }),
        })
    }

    /// Enters `value` under `key`.
    ///
    /// # Errors
    ///
    /// `EBUSY` if there is one already; `ENOMEM`.
    pub fn insert(&self, key: u32, value: u32, gfp: Gfp) -> Result {
        // SAFETY: The array is valid. INVARIANT: The entry is a value.
        to_result(unsafe {
            bindings::kernel_ext_xa_insert(self.xa.get(), key as usize, entry(value), gfp.as_raw())
        })
    }

    /// The value under `key`.
    pub fn get(&self, key: u32, _guard: &rcu::Guard) -> Option<u32> {
        // SAFETY: The array is valid, and the guard proves that RCU is locked.
        let entry = unsafe { bindings::kernel_ext_xa_load_rcu(self.xa.get(), key as usize) };
        // SAFETY: Entries are values, by the type invariant; they were made of 32 bits.
        (!entry.is_null()).then(|| unsafe { bindings::kernel_ext_xa_to_value(entry) } as u32)
    }

    /// Removes what is under `key` if that is `value`.
    pub fn remove(&self, key: u32, value: u32) {
        // SAFETY: The array is valid.
        unsafe { bindings::kernel_ext_xa_erase_if(self.xa.get(), key as usize, entry(value)) };
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        // SAFETY: The array is valid.
        unsafe { bindings::kernel_ext_xa_empty(self.xa.get()) }
    }
}

fn entry(value: u32) -> *mut c_void {
    // SAFETY: This computes only; 32 bits fit a value.
    unsafe { bindings::kernel_ext_xa_mk_value(value as usize) }
}
