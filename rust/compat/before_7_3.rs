// SPDX-License-Identifier: GPL-2.0

//! Linux 7.2.

use kernel::ThisModule;

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
                extern "C" {
                    static __this_module: ::kernel::types::Opaque<::kernel::bindings::module>;
                }

                // SAFETY: The pointer is that of the module of this crate. The kernel creates it
                // when it loads the module, and frees it when it has unloaded the module.
                unsafe { ::kernel::ThisModule::from_ptr(__this_module.get()) }
            };
        }
    };
}

pub use crate::__module as module;
