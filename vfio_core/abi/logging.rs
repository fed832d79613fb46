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

/// Ranges of device addresses that don't overlap, as a tree for a driver.
///
/// # Invariants
///
/// The tree of `root` has all of `nodes` and nothing else. The nodes stay where they are: the vector
/// never grows beyond its first capacity.
pub(crate) struct Ranges {
    nodes: KVec<bindings::interval_tree_node>,
    root: bindings::rb_root_cached,
}

impl Ranges {
    /// No range yet, with room for `count` of them.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn with_capacity(count: usize) -> Result<Self> {
        // INVARIANT: There are no nodes, and the tree is empty.
        Ok(Self {
            nodes: KVec::with_capacity(count, GFP_KERNEL)?,
            root: pin_init::zeroed(),
        })
    }

    /// Adds the range with these first and last addresses.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it overlaps with another one; `E2BIG` if there is no room.
    pub(crate) fn add(&mut self, first: u64, last: u64) -> Result {
        let (start, last) = (first as c_ulong, last as c_ulong);
        // SAFETY: By the type invariant the tree is valid.
        let met = unsafe { bindings::interval_tree_iter_first(&mut self.root, start, last) };
        if !met.is_null() {
            return Err(EINVAL);
        }
        let node = bindings::interval_tree_node {
            start,
            last,
            ..pin_init::zeroed()
        };
        let index = self.nodes.len();
        self.nodes.push_within_capacity(node).map_err(|_| E2BIG)?;
        let node = self.nodes.as_mut_ptr().wrapping_add(index);
        // SAFETY: The node is new, and stays where it is until the tree goes with it.
        // INVARIANT: Now it is in the tree, too.
        unsafe { bindings::interval_tree_insert(node, &mut self.root) };
        Ok(())
    }
}

/// Starts logging in `ranges`, in units of `page_size`, which the driver may change.
///
/// # Errors
///
/// The driver's.
pub(crate) fn start(device: &Device, mut ranges: Ranges, page_size: &mut u64) -> Result {
    let start = ops(device)?.log_start.ok_or(ENOTTY)?;
    let count = ranges.nodes.len() as u32;
    // SAFETY: The device is open. The tree is valid for the call, in which the driver may change it.
    to_result(unsafe { start(device.as_ptr(), &mut ranges.root, count, page_size) })
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
