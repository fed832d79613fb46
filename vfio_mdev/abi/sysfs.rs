// SPDX-License-Identifier: GPL-2.0

//! Attributes as C tables, and what their callbacks have in common.

use core::fmt::Write;

use kernel::{
    ffi::c_char,
    fmt,
    page::PAGE_SIZE,
    prelude::*,
    str::Formatter, //
};
use kernel_ext::bindings;

/// A constant that C reads.
#[repr(transparent)]
pub(super) struct Table<T>(pub(super) T);

// SAFETY: The tables are never written, and their pointers are to other constants.
unsafe impl<T> Sync for Table<T> {}

/// The name and mode of an attribute.
pub(super) const fn attribute(name: &'static CStr, mode: u16) -> bindings::attribute {
    let mut attribute: bindings::attribute = pin_init::zeroed();
    attribute.name = kernel::str::as_char_ptr_in_const_context(name);
    attribute.mode = mode;
    attribute
}

/// Fills the page of a `show` callback with `text` and a line end; returns the length.
///
/// # Safety
///
/// `page` is the buffer that sysfs gave to a `show` callback.
pub(super) unsafe fn show(page: *mut c_char, text: impl fmt::Display) -> Result<isize> {
    // SAFETY: By this function's contract there is a page to write to, which is ours.
    let buffer = unsafe { core::slice::from_raw_parts_mut(page.cast::<u8>(), PAGE_SIZE) };
    let mut formatter = Formatter::new(buffer);
    formatter
        .write_fmt(fmt!("{}\n", text))
        .map_err(|_| EINVAL)?;
    Ok(formatter.bytes_written() as isize)
}

/// What a `store` callback was given.
///
/// # Safety
///
/// `page` and `count` are what sysfs gave to the callback.
pub(super) unsafe fn stored<'a>(page: *const c_char, count: usize) -> &'a [u8] {
    // SAFETY: By this function's contract.
    unsafe { core::slice::from_raw_parts(page.cast(), count) }
}
