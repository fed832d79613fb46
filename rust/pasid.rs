// SPDX-License-Identifier: GPL-2.0

//! Optional PASIDs from `ioasid.ko`.
//!
//! C header: `include/linux/ioasid.h` of this project.

use core::{
    ffi::c_void,
    mem::transmute, //
};

use crate::symbol::Symbol;

/// The largest PASID: PCIe has 20 bits.
const LARGEST: u32 = (1 << 20) - 1;

/// `ioasid_alloc_owned()`.
type Alloc = unsafe extern "C" fn(u32, u32) -> u64;

/// `ioasid_free_owned()`.
type Free = unsafe extern "C" fn(u64);

/// A PASID that is unique in the system until this is dropped. It keeps `ioasid.ko` loaded.
pub struct Pasid {
    handle: u64,
    free: Symbol,
}

impl Pasid {
    /// Allocates a PASID without a set. Returns `None` if `ioasid.ko` isn't loaded or has no free
    /// PASID. Sleeps.
    pub fn alloc() -> Option<Self> {
        let alloc = Symbol::get(c"ioasid_alloc_owned")?;
        let free = Symbol::get(c"ioasid_free_owned")?;
        // SAFETY: The symbol has this type.
        let alloc_fn = unsafe { transmute::<*mut c_void, Alloc>(alloc.address()) };
        // SAFETY: The function has no requirements.
        let handle = unsafe { alloc_fn(1, LARGEST) };
        // If the allocation failed, the lower half is the invalid id.
        (handle as u32 <= LARGEST).then(|| Self { handle, free })
    }

    /// Returns the PASID, 1 to 2²⁰ - 1.
    pub fn id(&self) -> u32 {
        // The id is the lower half of the handle.
        self.handle as u32
    }
}

impl Drop for Pasid {
    fn drop(&mut self) {
        // SAFETY: The symbol has this type.
        let free_fn = unsafe { transmute::<*mut c_void, Free>(self.free.address()) };
        // SAFETY: The function accepts any handle.
        unsafe { free_fn(self.handle) };
    }
}
