// SPDX-License-Identifier: GPL-2.0

//! `struct vfio_log_ops`: devices that note themselves which memory they wrote to.

use core::ffi::c_void;

use kernel::{
    error::to_result,
    ffi::{
        c_int,
        c_ulong, //
    },
    prelude::*,
    uaccess::UserPtr, //
};
use kernel_ext::bindings;

use super::device::Device;

/// A range of device addresses, its last address included.
pub(crate) struct Range {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// # Errors
///
/// `ENOTTY` if the device notes nothing.
fn ops(device: &Device) -> Result<&bindings::vfio_log_ops> {
    // SAFETY: Null, or set before the device is registered to a table that outlives it.
    unsafe { (*device.as_ptr()).log_ops.as_ref() }.ok_or(ENOTTY)
}

/// Whether the device can log, else `ENOTTY`.
pub(crate) fn check(device: &Device) -> Result {
    ops(device).map(|_| ())
}

/// Starts logging in `ranges`, in units of `page_size`, which the driver may change.
///
/// # Errors
///
/// `EINVAL` if ranges overlap; the driver's.
pub(crate) fn start(device: &Device, ranges: &[Range], page_size: &mut u64) -> Result {
    let start = ops(device)?.log_start.ok_or(ENOTTY)?;
    let mut nodes: KVec<bindings::interval_tree_node> =
        KVec::with_capacity(ranges.len(), GFP_KERNEL)?;
    let mut root: bindings::rb_root_cached = pin_init::zeroed();
    for range in ranges {
        let node = bindings::interval_tree_node {
            start: range.first as c_ulong,
            last: range.last as c_ulong,
            ..pin_init::zeroed()
        };
        nodes.push(node, GFP_KERNEL)?;
        let index = nodes.len() - 1;
        let node: *mut bindings::interval_tree_node = &mut nodes[index];
        // SAFETY: The nodes don't move: the vector was made large enough for all of them. They
        // and the root live until the driver is done with the tree, which it only reads.
        unsafe {
            if !bindings::interval_tree_iter_first(&mut root, (*node).start, (*node).last).is_null()
            {
                return Err(EINVAL);
            }
            bindings::interval_tree_insert(node, &mut root);
        }
    }
    // SAFETY: The device is open and the tree is as described above.
    to_result(unsafe { start(device.as_ptr(), &mut root, nodes.len() as u32, page_size) })
}

/// Stops logging.
pub(crate) fn stop(device: &Device) -> Result<isize> {
    let stop = ops(device)?.log_stop.ok_or(ENOTTY)?;
    // SAFETY: The device is open.
    let ret = unsafe { stop(device.as_ptr()) };
    to_result(ret.min(0))?;
    Ok(ret as isize)
}

/// Sets bits in the user's bitmap for what was written since the last report, and forgets it.
pub(crate) fn report(
    device: &Device,
    report: &bindings::vfio_device_feature_dma_logging_report,
) -> Result {
    ops(device)?;
    // SAFETY: The device is open during the call; the callee checks the address of the bitmap.
    to_result(unsafe {
        bindings::kernel_ext_iova_bitmap_report(
            report.iova as c_ulong,
            report.length as usize,
            report.page_size as c_ulong,
            UserPtr::from_addr(report.bitmap as usize)
                .as_mut_ptr()
                .cast(),
            device.as_ptr().cast(),
            Some(read_and_clear_callback),
        )
    })
}

/// # Safety
///
/// Called from [`report`] with the device that it passed.
unsafe extern "C" fn read_and_clear_callback(
    bitmap: *mut bindings::iova_bitmap,
    iova: c_ulong,
    length: usize,
    device: *mut c_void,
) -> c_int {
    // SAFETY: By this function's contract.
    let device = unsafe { Device::from_raw(device.cast()) };
    match ops(device).map(|ops| ops.log_read_and_clear) {
        // SAFETY: The device is open and `bitmap` is the caller's.
        Ok(Some(read)) => unsafe { read(device.as_ptr(), iova, length as c_ulong, bitmap) },
        _ => ENOTTY.to_errno(),
    }
}
