// SPDX-License-Identifier: GPL-2.0

//! Allocation flags for C functions; [`kernel::alloc::Flags`] doesn't expose its bits.
//!
//! C header: [`include/linux/gfp_types.h`](srctree/include/linux/gfp_types.h)

use kernel::bindings;

/// The mode of an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gfp {
    /// The allocation may use reserves but doesn't sleep: for interrupts and under spinlocks.
    Atomic,
    /// The allocation may sleep.
    Kernel,
    /// The allocation may sleep, and is charged to the calling task: for memory that userspace can
    /// make grow.
    KernelAccount,
}

impl Gfp {
    /// Returns the flags for C.
    pub(crate) fn as_raw(self) -> bindings::gfp_t {
        match self {
            Self::Atomic => bindings::GFP_ATOMIC,
            Self::Kernel => bindings::GFP_KERNEL,
            Self::KernelAccount => bindings::GFP_KERNEL_ACCOUNT,
        }
    }
}
