// SPDX-License-Identifier: GPL-2.0

//! Copies the argument of a request out of the program's memory.

use crate::request::{
    Argument,
    Kind, //
};
use std::ffi::{
    CStr,
    c_char, //
};

/// No structure of VFIO that a program sends is longer.
const LONGEST: usize = 64 << 10;

/// Copies it.
///
/// # Safety
///
/// `arg` must be what the request wants: if that is an address, the structure there must be readable, in
/// the length that it says itself.
pub unsafe fn read(kind: &Kind, arg: usize) -> Vec<u8> {
    let address = std::ptr::with_exposed_provenance::<u8>(arg);
    match kind.argument {
        Argument::Number => arg.to_ne_bytes().to_vec(),
        // The number itself says nothing.
        Argument::Descriptor => Vec::new(),
        _ if address.is_null() => Vec::new(),
        Argument::Text => {
            // SAFETY: By the function's contract a text is there.
            let text = unsafe { CStr::from_ptr(address.cast::<c_char>()) };
            text.to_bytes().to_vec()
        }
        Argument::Structure => {
            // SAFETY: By the function's contract a structure is there that begins with its size.
            let size = unsafe { address.cast::<u32>().read_unaligned() } as usize;
            // SAFETY: By the function's contract it has so many bytes, and nobody changes it meanwhile.
            unsafe { std::slice::from_raw_parts(address, size.min(LONGEST)) }.to_vec()
        }
    }
}

/// Copies it after the request, when it may say that there would have been more.
///
/// # Safety
///
/// As for [`read`], which returned `len` bytes for the same argument.
pub unsafe fn read_again(kind: &Kind, arg: usize, len: usize) -> Vec<u8> {
    match kind.argument {
        Argument::Structure if len > 0 => {
            let address = std::ptr::with_exposed_provenance::<u8>(arg);
            // SAFETY: By the function's contract it has so many bytes, and nobody changes it meanwhile.
            unsafe { std::slice::from_raw_parts(address, len) }.to_vec()
        }
        _ => Vec::new(),
    }
}
