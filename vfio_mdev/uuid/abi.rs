// SPDX-License-Identifier: GPL-2.0

//! The generator of random UUIDs.

/// Returns the bytes of a random UUID (version 4).
pub(super) fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    // SAFETY: The function writes 16 bytes, and the array has 16 bytes.
    unsafe { kernel_ext::bindings::generate_random_uuid(bytes.as_mut_ptr()) };
    bytes
}
