// SPDX-License-Identifier: GPL-2.0

//! Marks on the kernel that tell bug reports apart.
//!
//! C header: [`include/linux/panic.h`](srctree/include/linux/panic.h)

use crate::bindings;

/// Notes that userspace was given something that can break the kernel (flag `U`).
pub fn user() {
    // SAFETY: Any task may add a taint.
    unsafe { bindings::add_taint(bindings::TAINT_USER, bindings::lockdep_ok_LOCKDEP_STILL_OK) };
}

/// Notes that something is in use which is for tests (flag `N`).
pub fn test() {
    // SAFETY: Any task may add a taint.
    unsafe { bindings::add_taint(bindings::TAINT_TEST, bindings::lockdep_ok_LOCKDEP_STILL_OK) };
}
