// SPDX-License-Identifier: GPL-2.0

//! Sysfs attributes as C tables, and helpers for their callbacks.

use core::fmt::Write;

use kernel::{
    ffi::c_char,
    fmt,
    page::PAGE_SIZE,
    prelude::*,
    str::Formatter, //
};
use kernel_ext::bindings;

/// A constant table that C code reads.
#[repr(transparent)]
pub(crate) struct Table<T>(pub(crate) T);

// SAFETY: The tables are never written, and their pointers point at other constants.
unsafe impl<T> Sync for Table<T> {}

/// Builds an attribute from its name and mode.
pub(crate) const fn attribute(name: &'static CStr, mode: u16) -> bindings::attribute {
    let mut attribute: bindings::attribute = pin_init::zeroed();
    attribute.name = kernel::str::as_char_ptr_in_const_context(name);
    attribute.mode = mode;
    attribute
}

/// Fills the page of a `show` callback with `text` and a newline. Returns the length.
///
/// # Safety
///
/// `page` is the buffer that sysfs passed to a `show` callback.
pub(crate) unsafe fn show(page: *mut c_char, text: impl fmt::Display) -> Result<isize> {
    // SAFETY: By this function's contract `page` is a page that this call may write exclusively.
    let buffer = unsafe { core::slice::from_raw_parts_mut(page.cast::<u8>(), PAGE_SIZE) };
    let mut formatter = Formatter::new(buffer);
    formatter
        .write_fmt(fmt!("{}\n", text))
        .map_err(|_| EINVAL)?;
    Ok(formatter.bytes_written() as isize)
}
