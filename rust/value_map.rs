// SPDX-License-Identifier: GPL-2.0

//! A map from integers to integers, with lookups that take no lock.
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

/// A map from 32-bit keys to 32-bit values.
///
/// Lookups take no lock. Changes take a spinlock with interrupts disabled, so all methods may be
/// called from any context. The map has allocated memory only while it has entries. An empty map
/// can be forgotten; a map with entries leaks.
///
/// # Invariants
///
/// All entries are xarray values.
#[pin_data]
pub struct ValueMap {
    #[pin]
    xa: Opaque<bindings::xarray>,
}

// SAFETY: The array has its own lock, and contains only integers.
unsafe impl Send for ValueMap {}
// SAFETY: As above.
unsafe impl Sync for ValueMap {}

impl ValueMap {
    /// Returns an empty map.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: The array is pinned. INVARIANT: It is empty.
            xa <- Opaque::ffi_init(|xa| unsafe { bindings::kernel_ext_xa_init(xa) }),
        })
    }

    /// Adds `value` with the key `key`.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the key has a value already; `ENOMEM`.
    pub fn insert(&self, key: u32, value: u32, gfp: Gfp) -> Result {
        // SAFETY: The array is valid. INVARIANT: The entry is a value.
        to_result(unsafe {
            bindings::kernel_ext_xa_insert(self.xa.get(), key as usize, entry(value), gfp.as_raw())
        })
    }

    /// Returns the value of `key`.
    pub fn get(&self, key: u32, _guard: &rcu::Guard) -> Option<u32> {
        // SAFETY: The array is valid, and the guard proves that RCU is locked.
        let entry = unsafe { bindings::kernel_ext_xa_load_rcu(self.xa.get(), key as usize) };
        // SAFETY: By the type invariant entries are values, and they were created from 32 bits.
        (!entry.is_null()).then(|| unsafe { bindings::kernel_ext_xa_to_value(entry) } as u32)
    }

    /// Removes the entry of `key` if its value is `value`.
    pub fn remove(&self, key: u32, value: u32) {
        // SAFETY: The array is valid.
        unsafe { bindings::kernel_ext_xa_erase_if(self.xa.get(), key as usize, entry(value)) };
    }

    /// Returns whether the map is empty.
    pub fn is_empty(&self) -> bool {
        // SAFETY: The array is valid.
        unsafe { bindings::kernel_ext_xa_empty(self.xa.get()) }
    }
}

fn entry(value: u32) -> *mut c_void {
    // SAFETY: The function only computes, and 32 bits fit a value.
    unsafe { bindings::kernel_ext_xa_mk_value(value as usize) }
}
