// SPDX-License-Identifier: GPL-2.0

//! The SPIDs of a set, in an XArray.
//!
//! C header: [`include/linux/xarray.h`](srctree/include/linux/xarray.h)

use core::ffi::c_void;

use kernel::{
    error::to_result,
    prelude::*,
    sync::rcu,
    types::Opaque, //
};

use kernel_ext::bindings;

use crate::gfp::Gfp;

/// The ids of a set by their SPIDs.
///
/// Lookups take no lock. Changes take a spinlock with interrupts disabled, so all methods may be
/// called from any context. [`SpidMap::clear`] must be called before the map is dropped: otherwise
/// its memory leaks. A map without entries can have memory, too, after an insertion failed with
/// `ENOMEM`.
///
/// # Invariants
///
/// All entries are xarray values.
#[pin_data]
pub(crate) struct SpidMap {
    #[pin]
    xa: Opaque<bindings::xarray>,
}

// SAFETY: The array has its own lock, and contains only integers.
unsafe impl Send for SpidMap {}
// SAFETY: As above.
unsafe impl Sync for SpidMap {}

impl SpidMap {
    /// Creates an empty map.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: The array is pinned. INVARIANT: It is empty.
            xa <- Opaque::ffi_init(|xa| unsafe { bindings::kernel_ext_xa_init(xa) }),
        })
    }

    /// Adds the SPID of an id.
    ///
    /// # Errors
    ///
    /// `EBUSY` if another id has the SPID; `ENOMEM`.
    pub(crate) fn insert(&self, spid: u32, id: u32, gfp: Gfp) -> Result {
        // SAFETY: The array is valid. INVARIANT: The entry is a value.
        to_result(unsafe {
            bindings::kernel_ext_xa_insert(self.xa.get(), spid as usize, entry(id), gfp.as_raw())
        })
    }

    /// Returns the id with this SPID.
    pub(crate) fn get(&self, spid: u32, _guard: &rcu::Guard) -> Option<u32> {
        // SAFETY: The array is valid, and the guard proves that RCU is locked.
        let entry = unsafe { bindings::kernel_ext_xa_load_rcu(self.xa.get(), spid as usize) };
        // SAFETY: By the type invariant entries are values, and they were created from 32 bits.
        (!entry.is_null()).then(|| unsafe { bindings::kernel_ext_xa_to_value(entry) } as u32)
    }

    /// Removes the SPID if it is that of this id.
    pub(crate) fn remove(&self, spid: u32, id: u32) {
        // SAFETY: The array is valid.
        unsafe { bindings::kernel_ext_xa_erase_if(self.xa.get(), spid as usize, entry(id)) };
    }

    /// Removes all entries, and frees the memory when no reader uses it any more.
    pub(crate) fn clear(&self) {
        // SAFETY: The array is valid. Its entries own nothing.
        unsafe { bindings::xa_destroy(self.xa.get()) };
    }
}

/// Returns the entry of the array for an id.
fn entry(id: u32) -> *mut c_void {
    // SAFETY: The function only computes, and 32 bits fit a value.
    unsafe { bindings::kernel_ext_xa_mk_value(id as usize) }
}
