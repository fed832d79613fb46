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

/// Fills the page of a `show` callback with `text` and a newline, byte by byte, like `sysfs_emit()`.
/// Returns the length.
///
/// # Safety
///
/// As for [`show`].
pub(crate) unsafe fn show_text(page: *mut c_char, text: &CStr) -> isize {
    // SAFETY: By this function's contract `page` is a page that this call may write exclusively.
    let buffer = unsafe { core::slice::from_raw_parts_mut(page.cast::<u8>(), PAGE_SIZE) };
    fill(buffer, text) as isize
}

/// Fills a buffer with `text` and a newline, and leaves room for a NUL byte. Leaves out what does not
/// fit. Returns the length.
fn fill(buffer: &mut [u8], text: &CStr) -> usize {
    let line = Iterator::chain(text.to_bytes().iter(), b"\n");
    let room = buffer.len().saturating_sub(1);
    let copied = buffer.iter_mut().take(room).zip(line);
    copied.map(|(to, from)| *to = *from).count()
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(vfio_mdev_sysfs)]
mod tests {
    use super::*;

    #[test]
    fn text_is_not_escaped() {
        let mut buffer = [0; 16];
        for (text, line) in [
            (c"", &b"\n"[..]),
            (c"4 GB", b"4 GB\n"),
            (c"f\xc3\xbcnf\ttab", b"f\xc3\xbcnf\ttab\n"),
            (c"two\nlines", b"two\nlines\n"),
        ] {
            let length = fill(&mut buffer, text);
            assert_eq!(&buffer[..length], line);
        }
    }

    #[test]
    fn text_without_room_is_truncated() {
        for (size, line) in [(0, &b""[..]), (1, b""), (6, b"12345"), (7, b"12345\n")] {
            let mut buffer = [0; 8];
            let length = fill(&mut buffer[..size], c"12345");
            assert_eq!(&buffer[..length], line);
        }
    }
}
