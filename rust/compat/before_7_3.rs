// SPDX-License-Identifier: GPL-2.0

//! Linux 7.2.

use core::{
    mem::transmute,
    num::NonZeroI32, //
};

use kernel::{
    error::Error,
    ThisModule, //
};
use pin_init::PinInit;

use crate::bindings;

/// Operation not supported on transport endpoint.
// SAFETY: The only field of `Error` is a `NonZeroI32`, and the types have the same size, so the
// field is the whole structure. The number is an errno.
pub const EOPNOTSUPP: Error = unsafe {
    transmute::<NonZeroI32, Error>(NonZeroI32::new(-(bindings::EOPNOTSUPP as i32)).unwrap())
};

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
            // SAFETY: The pointer is that of the same module.
            const THIS_MODULE: ::kernel::ThisModule =
                unsafe { ::kernel::ThisModule::from_ptr(crate::THIS_MODULE.as_ptr()) };
        }
    };
}

pub use crate::__module as module;
