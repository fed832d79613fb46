// SPDX-License-Identifier: GPL-2.0

//! Copies of request arguments.

use crate::request::{
    Argument,
    Kind, //
};
use std::ffi::{
    CStr,
    c_char, //
};

/// The maximum size of a structure that a program sends.
const LONGEST: usize = 64 << 10;

/// Copies the argument of a request.
///
/// # Safety
///
/// `arg` must be what the request expects. If it is an address, the structure at that address must
/// be readable up to the size that it contains.
pub unsafe fn read(kind: &Kind, arg: usize) -> Vec<u8> {
    let address = std::ptr::with_exposed_provenance::<u8>(arg);
    match kind.argument {
        Argument::None => Vec::new(),
        Argument::Number => arg.to_ne_bytes().to_vec(),
        // The number itself is not reproducible.
        Argument::Descriptor => Vec::new(),
        _ if address.is_null() => Vec::new(),
        Argument::Text => {
            // SAFETY: By the function's contract `address` points to a string.
            let text = unsafe { CStr::from_ptr(address.cast::<c_char>()) };
            text.to_bytes().to_vec()
        }
        Argument::Structure => {
            // SAFETY: By the function's contract `address` points to a structure that begins with
            // its size.
            let size = unsafe { address.cast::<u32>().read_unaligned() } as usize;
            // SAFETY: By the function's contract it has that many bytes, and nothing changes it
            // meanwhile.
            unsafe { std::slice::from_raw_parts(address, size.min(LONGEST)) }.to_vec()
        }
    }
}

/// Copies the argument again after the request. The kernel may then have set a larger size.
///
/// # Safety
///
/// As for [`read`], which returned `len` bytes for the same argument.
pub unsafe fn read_again(kind: &Kind, arg: usize, len: usize) -> Vec<u8> {
    match kind.argument {
        Argument::Structure if len > 0 => {
            let address = std::ptr::with_exposed_provenance::<u8>(arg);
            // SAFETY: By the function's contract it has that many bytes, and nothing changes it
            // meanwhile.
            unsafe { std::slice::from_raw_parts(address, len) }.to_vec()
        }
        _ => Vec::new(),
    }
}

/// Copies the array that a request, which has succeeded, filled.
///
/// # Safety
///
/// `before` and `after` must be what [`read`] and [`read_again`] returned for the request.
pub unsafe fn read_array(kind: &Kind, before: &[u8], after: &[u8]) -> Vec<u8> {
    let number =
        |bytes: &[u8], at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let found = || {
        let array = kind.array?;
        let room = number(before, array.count)?.min(number(after, array.count)?) as usize;
        let address = u64::from_ne_bytes(*before.get(kind.address?..)?.first_chunk()?);
        Some((usize::try_from(address).ok()?, room * array.element))
    };
    match found() {
        Some((address, len)) if address != 0 && len != 0 => {
            let address = std::ptr::with_exposed_provenance::<u8>(address);
            // SAFETY: The request succeeded, so that the kernel has just written these bytes: the
            // array has room for the first number, and the kernel had as many elements as the
            // second.
            unsafe { std::slice::from_raw_parts(address, len.min(LONGEST)) }.to_vec()
        }
        _ => Vec::new(),
    }
}
