// SPDX-License-Identifier: GPL-2.0

//! `struct vfio_info_cap`: a chain of capabilities in a buffer that drivers and the core grow.

use kernel::prelude::*;
use kernel_ext::bindings;

use super::device::Device;
use crate::info_caps;

/// Makes room for a capability of `size` bytes with its header, and writes the header.
///
/// On failure the chain is freed.
///
/// # Safety
///
/// `caps` is valid and not used by anybody else; its buffer is null or from `kmalloc()`.
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
    // SAFETY: The buffer was just made; its new end may be uninitialised, so it is zeroed first.
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

/// Makes the offsets in the chain count from `offset` bytes in front of it.
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

/// What a driver says about a region: the structure for userspace and the chain behind it.
pub(crate) struct RegionInfo {
    pub(crate) info: bindings::vfio_region_info,
    caps: bindings::vfio_info_cap,
}

impl RegionInfo {
    /// Asks the driver of an open device about the region that `info` returns.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the driver has no regions, without `info` being called; that of `info`; the driver's.
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

    /// Bytes of the chain.
    pub(crate) fn caps_size(&self) -> usize {
        self.caps.size
    }

    /// The chain, with offsets from `offset` bytes in front of it.
    pub(crate) fn shifted_caps(&mut self, offset: usize) -> &[u8] {
        // SAFETY: The chain was built by the driver with the functions above.
        unsafe { shift(&mut self.caps, offset) };
        // SAFETY: As above; called only if there is a chain, so the buffer is not null.
        unsafe { core::slice::from_raw_parts(self.caps.buf.cast(), self.caps.size) }
    }
}

impl Drop for RegionInfo {
    fn drop(&mut self) {
        // SAFETY: The buffer is null or from `kmalloc()`, and ours.
        unsafe { bindings::kfree(self.caps.buf.cast()) }
    }
}
