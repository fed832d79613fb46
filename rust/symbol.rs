// SPDX-License-Identifier: GPL-2.0

//! Functions of modules that need not be loaded, by their names.
//!
//! C header: [`include/linux/module.h`](srctree/include/linux/module.h)

use core::ffi::c_void;

use kernel::prelude::*;

use crate::bindings;

/// A reference to a function that a module exports. It keeps the module loaded.
///
/// # Invariants
///
/// `address` is that of the symbol `name`, to which `__symbol_get()` took a reference.
pub struct Symbol {
    name: &'static CStr,
    address: *mut c_void,
}

// SAFETY: The reference isn't bound to a thread, and the address is that of code.
unsafe impl Send for Symbol {}
// SAFETY: Nothing can be changed.
unsafe impl Sync for Symbol {}

impl Symbol {
    /// Takes a reference, if a module with this symbol is loaded.
    pub fn get(name: &'static CStr) -> Option<Self> {
        // SAFETY: The name ends with a null byte.
        let address = unsafe { bindings::__symbol_get(name.as_char_ptr()) };
        // INVARIANT: A reference was taken if the address isn't null.
        (!address.is_null()).then(|| Self { name, address })
    }

    /// Takes over a reference whose [`Symbol`] was forgotten.
    ///
    /// # Safety
    ///
    /// `name` and `address` are those of a [`Symbol`] that was not dropped, and the reference has
    /// no other owner.
    pub unsafe fn from_raw(name: &'static CStr, address: *mut c_void) -> Self {
        // INVARIANT: By this function's contract.
        Self { name, address }
    }

    /// Returns the address of the function, which is valid as long as this value exists.
    pub fn address(&self) -> *mut c_void {
        self.address
    }
}

impl Drop for Symbol {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this value owns the reference.
        unsafe { bindings::__symbol_put(self.name.as_char_ptr()) };
    }
}
