// SPDX-License-Identifier: GPL-2.0

//! References that keep a module loaded.
//!
//! C header: [`include/linux/module.h`](srctree/include/linux/module.h)

use crate::bindings;

/// Keeps a module from being unloaded.
///
/// # Invariants
///
/// The pointer is null (code that is built into the kernel) or owns one reference to the module.
pub struct ModuleRef(*mut bindings::module);

// SAFETY: Module references are counted per module, not per thread.
unsafe impl Send for ModuleRef {}
// SAFETY: There is nothing to do with a shared reference.
unsafe impl Sync for ModuleRef {}

impl ModuleRef {
    /// Takes a reference, unless the module is already on its way out.
    ///
    /// # Safety
    ///
    /// `module` is null or points at a module that cannot be freed during the call.
    pub unsafe fn try_get(module: *mut bindings::module) -> Option<Self> {
        // SAFETY: By this function's contract.
        // INVARIANT: On success there is one reference.
        unsafe { bindings::try_module_get(module) }.then(|| Self(module))
    }
}

impl Drop for ModuleRef {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::module_put(self.0) }
    }
}
