// SPDX-License-Identifier: GPL-2.0

//! How memory is allocated, for calls of C; [`kernel::alloc::Flags`] doesn't tell its bits.
//!
//! C header: [`include/linux/gfp_types.h`](srctree/include/linux/gfp_types.h)

use kernel::bindings;

/// What an allocation of memory may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gfp {
    /// Use reserves, but not sleep: for interrupts and under spinlocks.
    Atomic,
    /// Sleep.
    Kernel,
    /// Sleep; and the memory counts as the calling task's: for what a program can make grow.
    KernelAccount,
}

impl Gfp {
    /// The bits in C.
    pub(crate) fn as_raw(self) -> bindings::gfp_t {
        match self {
            Self::Atomic => bindings::GFP_ATOMIC,
            Self::Kernel => bindings::GFP_KERNEL,
            Self::KernelAccount => bindings::GFP_KERNEL_ACCOUNT,
        }
    }
}
