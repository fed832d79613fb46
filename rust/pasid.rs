// SPDX-License-Identifier: GPL-2.0

//! PASIDs from `ioasid.ko`, for those who can do without.
//!
//! C header: `include/linux/ioasid.h` of this project.

use core::{
    ffi::c_void,
    mem::transmute,
    ptr::null_mut, //
};

use kernel::prelude::*;

use crate::bindings;

/// The 20 bits that a PASID has on PCIe.
const LARGEST: u32 = (1 << 20) - 1;

/// `ioasid_alloc()`.
type Alloc = unsafe extern "C" fn(*mut c_void, u32, u32, *mut c_void) -> u32;

/// `ioasid_free()`.
type Free = unsafe extern "C" fn(*mut c_void, u32);

/// A PASID that is nobody else's in the whole system, until this is dropped. It keeps `ioasid.ko` loaded.
pub struct Pasid {
    id: u32,
    free: Symbol,
}

impl Pasid {
    /// Takes a PASID, of no set. `None` if `ioasid.ko` isn't loaded, or has none left.
    pub fn alloc() -> Option<Self> {
        let (alloc, free) = (Symbol::get(c"ioasid_alloc")?, Symbol::get(c"ioasid_free")?);
        // SAFETY: The symbol has this type.
        let alloc_fn = unsafe { transmute::<*mut c_void, Alloc>(alloc.address) };
        // SAFETY: A null set stands for ids in no set; the private data isn't looked at.
        let id = unsafe { alloc_fn(null_mut(), 1, LARGEST, null_mut()) };
        (id <= LARGEST).then(|| Self { id, free })
    }

    /// The PASID: 1 to 2²⁰ - 1.
    pub fn id(&self) -> u32 {
        self.id
    }
}

impl Drop for Pasid {
    fn drop(&mut self) {
        // SAFETY: The symbol has this type.
        let free_fn = unsafe { transmute::<*mut c_void, Free>(self.free.address) };
        // SAFETY: The id was allocated in no set, and is freed once.
        unsafe { free_fn(null_mut(), self.id) };
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
