// SPDX-License-Identifier: GPL-2.0

//! References that keep a module loaded, and the taint flags that modules set.
//!
//! C headers: [`include/linux/module.h`](srctree/include/linux/module.h),
//! [`include/linux/panic.h`](srctree/include/linux/panic.h)

use crate::bindings;

/// A reference to a module, which prevents it from being unloaded.
///
/// # Invariants
///
/// The pointer is null (code that is built into the kernel), or this value owns one reference to
/// the module.
pub struct ModuleRef(*mut bindings::module);

// SAFETY: Module references are counted per module, not per thread.
unsafe impl Send for ModuleRef {}
// SAFETY: A shared reference has no operations.
unsafe impl Sync for ModuleRef {}

impl ModuleRef {
    /// Takes a reference, unless the module is being unloaded.
    ///
    /// # Safety
    ///
    /// `module` is null or points at a module that cannot be freed during the call.
    pub unsafe fn try_get(module: *mut bindings::module) -> Option<Self> {
        // SAFETY: By this function's contract.
        // INVARIANT: On success this value owns one reference.
        unsafe { bindings::try_module_get(module) }.then(|| Self(module))
    }
}

impl Drop for ModuleRef {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::module_put(self.0) }
    }
}

/// Taints the kernel: userspace was given something that can break it (flag `U`).
pub fn taint_user() {
    // SAFETY: Any task may add a taint.
    unsafe { bindings::add_taint(bindings::TAINT_USER, bindings::lockdep_ok_LOCKDEP_STILL_OK) };
}

/// Taints the kernel: something that is only for tests is in use (flag `N`).
pub fn taint_test() {
    // SAFETY: Any task may add a taint.
    unsafe { bindings::add_taint(bindings::TAINT_TEST, bindings::lockdep_ok_LOCKDEP_STILL_OK) };
}
