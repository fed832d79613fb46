// SPDX-License-Identifier: GPL-2.0

//! Module parameters that can be read and changed in sysfs.
//!
//! The parameters of `module!` are read once, when the module is loaded. Those of VFIO can be
//! changed at run time, in `/sys/module/<name>/parameters`.
//!
//! C header: [`include/linux/moduleparam.h`](srctree/include/linux/moduleparam.h)

use core::cell::UnsafeCell;

use kernel::ffi::c_uint;

/// The current value of a parameter that [`module_param!`](crate::module_param) defined.
///
/// # Invariants
///
/// Only the kernel's `param_set_*()` functions write the value, in one aligned store.
#[repr(transparent)]
pub struct Param<T>(UnsafeCell<T>);

// SAFETY: Reads are volatile. By the type invariant writes are single stores of a type that the
// processor reads and writes as a whole. Every value that was ever stored is valid.
unsafe impl<T: Value> Sync for Param<T> {}

/// The types of parameters that the kernel has `param_ops_*` for.
///
/// # Safety
///
/// `OPS` parses into a variable of this type, in one store, and stores only valid values of the
/// type.
pub unsafe trait Value: Copy + Send {
    /// The operations of the type.
    const OPS: *const kernel::bindings::kernel_param_ops;
}

// SAFETY: `param_set_bool()` stores a C `bool`.
unsafe impl Value for bool {
    const OPS: *const kernel::bindings::kernel_param_ops =
        &raw const kernel::bindings::param_ops_bool;
}

// SAFETY: `param_set_uint()` stores an `unsigned int`.
unsafe impl Value for c_uint {
    const OPS: *const kernel::bindings::kernel_param_ops =
        &raw const kernel::bindings::param_ops_uint;
}

impl<T: Value> Param<T> {
    /// Returns a parameter with the value `default`. For [`module_param!`](crate::module_param).
    #[doc(hidden)]
    pub const fn new(default: T) -> Self {
        // INVARIANT: Nothing was written yet.
        Self(UnsafeCell::new(default))
    }

    /// Returns the address that the kernel writes to. For [`module_param!`](crate::module_param).
    #[doc(hidden)]
    pub const fn as_ptr(&self) -> *mut T {
        self.0.get()
    }

    /// Returns the current value.
    pub fn get(&self) -> T {
        // SAFETY: The cell is valid, and by the type invariant it contains a complete value at any
        // time.
        unsafe { self.0.get().read_volatile() }
    }
}

/// Converts a string to an array of bytes. For [`module_param!`](crate::module_param).
#[doc(hidden)]
pub const fn bytes<const N: usize>(text: &str) -> [u8; N] {
    let text = text.as_bytes();
    let mut bytes = [0; N];
    let mut i = 0;
    while i < N {
        bytes[i] = text[i];
        i += 1;
    }
    bytes
}

/// Defines a module parameter that the administrator can read and change (mode 0644).
///
/// # Examples
///
/// ```ignore
/// module_param! {
///     /// Whether to be careful.
///     pub(crate) static CAREFUL: bool = true;
///     name: "careful", kind: "bool", description: "Be careful."
/// }
/// ```
// `crate` is the crate that defines the parameter, not this one.
#[expect(clippy::crate_in_macro_def)]
#[macro_export]
macro_rules! module_param {
    ($(#[$meta:meta])* $vis:vis static $ident:ident: $type:ty = $default:expr;
     name: $name:literal, kind: $kind:literal, description: $description:literal) => {
        $(#[$meta])*
        $vis static $ident: $crate::param::Param<$type> = $crate::param::Param::new($default);

        const _: () = {
            const TYPE: &str = concat!("parmtype=", $name, ":", $kind, "\0");
            const TEXT: &str = concat!("parm=", $name, ":", $description, "\0");

            #[link_section = ".modinfo"]
            #[used(compiler)]
            static MODINFO_TYPE: [u8; TYPE.len()] = $crate::param::bytes(TYPE);

            #[link_section = ".modinfo"]
            #[used(compiler)]
            static MODINFO_TEXT: [u8; TEXT.len()] = $crate::param::bytes(TEXT);

            #[link_section = "__param"]
            #[used(compiler)]
            static PARAM: ::kernel::module_param::KernelParam =
                ::kernel::module_param::KernelParam::new(::kernel::bindings::kernel_param {
                    name: concat!($name, "\0").as_ptr().cast(),
                    mod_: <crate::LocalModule as $crate::compat::ModuleMetadata>::THIS_MODULE.as_ptr(),
                    ops: <$type as $crate::param::Value>::OPS,
                    perm: 0o644,
                    level: -1,
                    flags: 0,
                    __bindgen_anon_1: ::kernel::bindings::kernel_param__bindgen_ty_1 {
                        arg: $ident.as_ptr().cast(),
                    },
                });
        };
    };
}
