// SPDX-License-Identifier: GPL-2.0

//! Linux 7.2.

use core::{
    mem::transmute,
    num::NonZeroI32, //
};

use kernel::{
    error::Error,
    ffi::{
        c_char,
        c_ulong, //
    },
    sync::lock::{
        Backend,
        Guard,
        Lock, //
    },
    ThisModule, //
};
use pin_init::PinInit;

use crate::bindings;

/// Defines errors that the `kernel` crate lacks.
macro_rules! errors {
    ($($name:ident: $text:literal,)+) => {
        $(
            #[doc = $text]
            // SAFETY: The only field of `Error` is a `NonZeroI32`, and the types have the same
            // size, so the field is the whole structure. The number is an errno.
            pub const $name: Error = unsafe {
                transmute::<NonZeroI32, Error>(
                    NonZeroI32::new(-(bindings::$name as i32)).unwrap(),
                )
            };
        )+
    };
}

errors! {
    EBADFD: "File descriptor in bad state.",
    ENOMSG: "No message of desired type.",
    ENOSYS: "Invalid system call number.",
    EOPNOTSUPP: "Operation not supported on transport endpoint.",
    EUCLEAN: "Structure needs cleaning.",
    EUSERS: "Too many users.",
}

/// A spin lock that is held with interrupts disabled.
pub type SpinLockIrq<T> = Lock<T, SpinLockIrqBackend>;

/// The guard of a [`SpinLockIrq`].
pub type SpinLockIrqGuard<'a, T> = Guard<'a, T, SpinLockIrqBackend>;

/// The backend of [`SpinLockIrq`]. The state of a guard is that of the interrupts before it.
pub struct SpinLockIrqBackend;

// SAFETY: A `spinlock_t` ensures mutual exclusion. `relock` calls `lock`.
unsafe impl Backend for SpinLockIrqBackend {
    type State = bindings::spinlock_t;
    type GuardState = c_ulong;

    unsafe fn init(ptr: *mut Self::State, name: *const c_char, key: *mut bindings::lock_class_key) {
        // SAFETY: By this function's contract.
        unsafe { bindings::__spin_lock_init(ptr, name, key) }
    }

    unsafe fn lock(ptr: *mut Self::State) -> c_ulong {
        // SAFETY: By this function's contract.
        unsafe { bindings::kernel_ext_spin_lock_irqsave(ptr) }
    }

    unsafe fn try_lock(ptr: *mut Self::State) -> Option<c_ulong> {
        let mut flags = 0;
        // SAFETY: By this function's contract.
        unsafe { bindings::kernel_ext_spin_trylock_irqsave(ptr, &mut flags) }.then_some(flags)
    }

    unsafe fn unlock(ptr: *mut Self::State, flags: &c_ulong) {
        // SAFETY: By this function's contract; the flags are those of the lock operation.
        unsafe { bindings::kernel_ext_spin_unlock_irqrestore(ptr, *flags) }
    }

    unsafe fn assert_is_held(ptr: *mut Self::State) {
        // SAFETY: By this function's contract.
        unsafe { bindings::spin_assert_is_held(ptr) }
    }
}

/// Returns what a parameter's `value` returned, which refers to it.
pub fn parameter<T: Copy>(value: &T) -> T {
    *value
}

/// Creates the initialiser of a [`SpinLockIrq`].
#[doc(hidden)]
#[macro_export]
macro_rules! __new_spinlock_irq {
    ($inner:expr $(, $name:literal)? $(,)?) => {
        $crate::compat::SpinLockIrq::new(
            $inner, ::kernel::optional_name!($($name)?), ::kernel::static_lock_class!())
    };
}

/// Defines a global [`SpinLockIrq`], as `kernel::sync::global_lock` does other locks.
#[doc(hidden)]
#[macro_export]
macro_rules! __global_lock {
    {
        $(#[$meta:meta])* $vis:vis
        unsafe(uninit) static $name:ident: SpinLockIrq<$type:ty> = $value:expr;
    } => {
        #[doc = concat!("The backend of [`", stringify!($name), "`](static@", stringify!($name), ").")]
        #[allow(non_camel_case_types, unreachable_pub)]
        $vis enum $name {}

        impl ::kernel::sync::lock::GlobalLockBackend for $name {
            const NAME: &'static ::kernel::str::CStr = ::kernel::c_str!(stringify!($name));
            type Item = $type;
            type Backend = $crate::compat::SpinLockIrqBackend;

            fn get_lock_class() -> ::core::pin::Pin<&'static ::kernel::sync::LockClassKey> {
                ::kernel::static_lock_class!()
            }
        }

        $(#[$meta])*
        $vis static $name: ::kernel::sync::lock::GlobalLock<$name> = {
            let value: $type = $value;
            // SAFETY: The user of this macro initialises the lock before use. This is the only
            // static with this backend type.
            unsafe { ::kernel::sync::lock::GlobalLock::new(value) }
        };
    };
}

/// Fallibly initialises `slot` with an initialiser.
///
/// # Safety
///
/// - `slot` is a valid pointer to uninitialised memory.
/// - The caller does not touch `slot` when `Err` is returned; it may only deallocate it.
/// - `slot` does not move until it is dropped.
#[inline(always)]
pub unsafe fn raw_try_init<T, E>(slot: *mut T, init: impl PinInit<T, E>) -> Result<(), E> {
    // SAFETY: By this function's contract.
    unsafe { init.__pinned_init(slot) }
}

/// Metadata of a module, for [`this_module`].
pub trait ModuleMetadata: kernel::ModuleMetadata {
    /// The module's `THIS_MODULE` pointer.
    const THIS_MODULE: ThisModule;
}

/// Returns a reference to the `THIS_MODULE` of the given module type.
#[inline]
pub const fn this_module<M: ModuleMetadata>() -> &'static ThisModule {
    &M::THIS_MODULE
}

/// Declares a module, as `kernel::prelude::module` does, with its [`ModuleMetadata`].
// `crate` is the crate of the module, not this one.
#[expect(clippy::crate_in_macro_def)]
#[doc(hidden)]
#[macro_export]
macro_rules! __module {
    ($($arguments:tt)*) => {
        ::kernel::prelude::module! { $($arguments)* }

        impl $crate::compat::ModuleMetadata for crate::LocalModule {
            const THIS_MODULE: ::kernel::ThisModule = {
                let module = crate::THIS_MODULE.as_ptr();
                // SAFETY: The pointer is that of the same module.
                unsafe { ::kernel::ThisModule::from_ptr(module) }
            };
        }
    };
}

pub use crate::{
    __global_lock as global_lock,
    __module as module,
    __new_spinlock_irq as new_spinlock_irq, //
};
