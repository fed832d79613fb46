// SPDX-License-Identifier: GPL-2.0

//! Taint flags of the kernel, for bug reports.
//!
//! C header: [`include/linux/panic.h`](srctree/include/linux/panic.h)

use crate::bindings;

/// Taints the kernel: userspace was given something that can break it (flag `U`).
pub fn user() {
    // SAFETY: Any task may add a taint.
    unsafe { bindings::add_taint(bindings::TAINT_USER, bindings::lockdep_ok_LOCKDEP_STILL_OK) };
}

/// Taints the kernel: something that is only for tests is in use (flag `N`).
pub fn test() {
    // SAFETY: Any task may add a taint.
    unsafe { bindings::add_taint(bindings::TAINT_TEST, bindings::lockdep_ok_LOCKDEP_STILL_OK) };
}
