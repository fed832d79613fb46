// SPDX-License-Identifier: GPL-2.0

//! Linux 7.3: the names as they are.

pub use kernel::{
    module::this_module,
    prelude::{
        module,
        EBADFD,
        ENOMSG,
        ENOSYS,
        EOPNOTSUPP,
        EUCLEAN,
        EUSERS, //
    },
    sync::{
        global_lock,
        new_spinlock_irq,
        SpinLockIrq,
        SpinLockIrqGuard, //
    },
    ModuleMetadata, //
};
pub use pin_init::raw_try_init;

/// Returns what a parameter's `value` returned.
pub fn parameter<T: Copy>(value: T) -> T {
    value
}
