// SPDX-License-Identifier: GPL-2.0

//! `struct vfio_info_cap`: a capability chain in a buffer that drivers and the core extend.

use kernel::prelude::*;
use kernel_ext::bindings;

use super::device::Device;
use crate::info_caps;

/// Extends the buffer for a capability of `size` bytes including its header, and writes the header.
///
/// On failure the whole chain is freed.
///
/// # Safety
///
/// `caps` is valid, and only the caller uses it. Its buffer is null or from `kmalloc()`.
pub(super) unsafe fn add(
    caps: &mut bindings::vfio_info_cap,
    size: usize,
    id: u16,
    version: u16,
) -> Result<*mut bindings::vfio_info_cap_header> {
    let at = caps.size;
    let total = info_caps::aligned_size(size).and_then(|size| size.checked_add(at));
    let buf = total.map_or(core::ptr::null_mut(), |total| {
        // SAFETY: By this function's contract.
        unsafe { krealloc(caps.buf.cast(), total) }
    });
    let (Some(total), false) = (total, buf.is_null()) else {
        // SAFETY: By this function's contract.
        unsafe { bindings::kfree(caps.buf.cast()) };
        *caps = pin_init::zeroed();
        return Err(ENOMEM);
    };
    caps.buf = buf.cast();
    caps.size = total;
    // SAFETY: The buffer was allocated above with `total` bytes. Its new end may be uninitialised,
    // so it is zeroed first.
    let chain = unsafe {
        buf.add(at).write_bytes(0, total - at);
        core::slice::from_raw_parts_mut(buf, total)
    };
    info_caps::append(chain, at, id, version);
    // SAFETY: `at` is within the buffer.
    Ok(unsafe { buf.add(at) }.cast())
}

/// # Safety
///
/// `buf` is null or from `kmalloc()`.
unsafe fn krealloc(buf: *mut u8, size: usize) -> *mut u8 {
    const ALIGN: usize = core::mem::align_of::<u64>();
    // SAFETY: By this function's contract.
    unsafe {
        bindings::krealloc_node_align_noprof(
            buf.cast(),
            size,
            ALIGN,
            bindings::GFP_KERNEL,
            bindings::NUMA_NO_NODE,
        )
        .cast()
    }
}

/// Adds `offset` to the offsets in the chain, so that they are relative to `offset` bytes before
/// it.
///
/// # Safety
///
/// As for [`add`].
pub(super) unsafe fn shift(caps: &mut bindings::vfio_info_cap, offset: usize) {
    if !caps.buf.is_null() {
        // SAFETY: The buffer has `size` initialised bytes.
        let chain = unsafe { core::slice::from_raw_parts_mut(caps.buf.cast(), caps.size) };
        info_caps::shift(chain, offset);
    }
}

/// A driver's description of a region: the structure for userspace and the capability chain that
/// follows it.
pub(crate) struct RegionInfo {
    pub(crate) info: bindings::vfio_region_info,
    caps: bindings::vfio_info_cap,
}

impl RegionInfo {
    /// Requests information about a region from the driver of an open device. `info` returns the
    /// structure that userspace passed, which selects the region.
    ///
    /// # Errors
    ///
    /// Returns `EINVAL`, without calling `info`, if the driver has no regions; the error of `info`;
    /// or the driver's error.
    pub(crate) fn ask(
        device: &Device,
        info: impl FnOnce() -> Result<bindings::vfio_region_info>,
    ) -> Result<Self> {
        let get = device.ops().get_region_info_caps.ok_or(EINVAL)?;
        let info = info()?;
        let mut answer = Self {
            info,
            caps: pin_init::zeroed(),
        };
        // SAFETY: The device is open and both structures are valid.
        let ret = unsafe { get(device.as_ptr(), &mut answer.info, &mut answer.caps) };
        kernel::error::to_result(ret.min(0))?;
        Ok(answer)
    }

    /// Returns the size of the chain in bytes.
    pub(crate) fn caps_size(&self) -> usize {
        self.caps.size
    }

    /// Returns the chain with offsets relative to `offset` bytes before it.
    pub(crate) fn shifted_caps(&mut self, offset: usize) -> &[u8] {
        if self.caps.buf.is_null() {
            return &[];
        }
        // SAFETY: The driver built the chain with the functions above.
        unsafe { shift(&mut self.caps, offset) };
        // SAFETY: As above, and the buffer is not null.
        unsafe { core::slice::from_raw_parts(self.caps.buf.cast(), self.caps.size) }
    }
}

impl Drop for RegionInfo {
    fn drop(&mut self) {
        // SAFETY: The buffer is null or from `kmalloc()`, and this value owns it.
        unsafe { bindings::kfree(self.caps.buf.cast()) }
    }
}
