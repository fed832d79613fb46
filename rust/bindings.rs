// SPDX-License-Identifier: GPL-2.0

//! C declarations that `kernel::bindings` does not carry, made by bindgen.
//!
//! Types that both know are those of `kernel::bindings`. For the `abi.rs` files of the modules;
//! everything else goes through the safe wrappers of this crate.

#![allow(
    clippy::all,
    clippy::as_underscore,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    improper_ctypes
)]

pub use kernel::bindings::*;
use kernel::ffi;
use pin_init::MaybeZeroable;

type __kernel_size_t = usize;
type __kernel_ssize_t = isize;
type __kernel_ptrdiff_t = isize;

include!(env!("KERNEL_EXT_BINDINGS"));
