// SPDX-License-Identifier: GPL-2.0

//! Requests for information, which capabilities may follow.

use crate::{
    Bytes,
    Error,
    Result,
    abi, //
};
use std::os::fd::AsFd;
use zerocopy::{
    Immutable,
    IntoBytes, //
};

/// The maximum number of bytes that a kernel can have room for. The answers of today's kernels have
/// less than a page.
const MOST: usize = 1 << 20;

/// The maximum number of attempts. What a kernel answers may grow in between, when a device is added.
const ATTEMPTS: usize = 8;

/// Sends a structure that begins with `argsz`, with as much room behind it as the kernel asks for.
/// Returns the answer.
pub(crate) fn query(
    fd: impl AsFd,
    nr: u32,
    call: &'static str,
    structure: &(impl IntoBytes + Immutable),
) -> Result<Bytes> {
    let fields = structure.as_bytes().get(size_of::<u32>()..);
    let fields = fields.unwrap_or_default();
    let mut size = size_of_val(structure);
    for _ in 0..ATTEMPTS {
        // CAST: The size is less than `MOST`.
        let mut bytes = Bytes::new().u32(size as u32).raw(fields);
        bytes = bytes.fill(0, size.saturating_sub(size_of_val(structure)));
        abi::ioctl_bytes(&fd, nr, bytes.as_mut()).map_err(Error::during(call))?;
        let needed = bytes.get_u32(0) as usize;
        if needed <= size {
            return Ok(bytes);
        }
        if needed > MOST {
            break;
        }
        size = needed;
    }
    Err(Error::malformed(call))
}
