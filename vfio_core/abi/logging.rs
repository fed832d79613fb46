// SPDX-License-Identifier: GPL-2.0

//! `struct vfio_log_ops`: devices that note themselves which memory they wrote to.

use kernel::{
    error::to_result,
    ffi::c_ulong,
    prelude::*, //
};
use kernel_ext::{
    bindings,
    dirty_bitmap, //
};

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
///
/// # Errors
///
/// `EOPNOTSUPP` if the driver can't report on this kernel; the driver's.
pub(crate) fn report(device: &Device, request: &dirty_bitmap::Request) -> Result {
    let read = ops(device)?.log_read_and_clear.ok_or(ENOTTY)?;
    dirty_bitmap::report(request, &mut |bitmap| {
        let (iova, length) = (request.iova as c_ulong, request.length as c_ulong);
        // SAFETY: The device is open, and `bitmap` is for drivers to fill in.
        to_result(unsafe { read(device.as_ptr(), iova, length, bitmap) })
    })
}
