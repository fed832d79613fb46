// SPDX-License-Identifier: GPL-2.0

//! PASIDs from `ioasid.ko`, for those who can do without.
//!
//! C header: `include/linux/ioasid.h` of this project.

use core::{
    ffi::c_void,
    mem::transmute, //
};

use kernel::prelude::*;

use crate::bindings;

/// The 20 bits that a PASID has on PCIe.
const LARGEST: u32 = (1 << 20) - 1;

/// `ioasid_alloc_owned()`.
type Alloc = unsafe extern "C" fn(u32, u32) -> u64;

/// `ioasid_free_owned()`.
type Free = unsafe extern "C" fn(u64);

/// A PASID that is in use nowhere else in the whole system, until this is dropped. It keeps `ioasid.ko`
/// loaded.
pub struct Pasid {
    handle: u64,
    free: Symbol,
}

impl Pasid {
    /// Takes a PASID, of no set. `None` if `ioasid.ko` isn't loaded, or has none left. Sleeps.
    pub fn alloc() -> Option<Self> {
        let alloc = Symbol::get(c"ioasid_alloc_owned")?;
        let free = Symbol::get(c"ioasid_free_owned")?;
        // SAFETY: The symbol has this type.
        let alloc_fn = unsafe { transmute::<*mut c_void, Alloc>(alloc.address) };
        // SAFETY: The function has no requirements.
        let handle = unsafe { alloc_fn(1, LARGEST) };
        // The lower half is the invalid id if there is none.
        (handle as u32 <= LARGEST).then(|| Self { handle, free })
    }

    /// The PASID: 1 to 2²⁰ - 1.
    pub fn id(&self) -> u32 {
        // The lower half of the handle.
        self.handle as u32
    }
}

impl Drop for Pasid {
    fn drop(&mut self) {
        // SAFETY: The symbol has this type.
        let free_fn = unsafe { transmute::<*mut c_void, Free>(self.free.address) };
        // SAFETY: The function takes any handle.
        unsafe { free_fn(self.handle) };
    }
}

/// A symbol of a module, which stays loaded.
///
/// # Invariants
///
/// `address` is that of the symbol `name`, on which `__symbol_get()` took a reference.
struct Symbol {
    name: &'static CStr,
    address: *mut c_void,
}

// SAFETY: The reference belongs to no thread, and the address is that of code.
unsafe impl Send for Symbol {}
// SAFETY: There is nothing to change.
unsafe impl Sync for Symbol {}

impl Symbol {
    /// Takes a reference, if a module with this symbol is loaded.
    fn get(name: &'static CStr) -> Option<Self> {
        // SAFETY: The name ends with a null byte.
        let address = unsafe { bindings::__symbol_get(name.as_char_ptr()) };
        // INVARIANT: The reference was taken if there is an address.
        (!address.is_null()).then(|| Self { name, address })
    }
}

impl Drop for Symbol {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the reference is ours.
        unsafe { bindings::__symbol_put(self.name.as_char_ptr()) };
    }
}
