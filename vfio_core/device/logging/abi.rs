// SPDX-License-Identifier: GPL-2.0

//! `struct vfio_log_ops`: devices that log their own DMA writes.

use kernel::{
    error::to_result,
    ffi::c_ulong,
    prelude::*, //
};
use kernel_ext::{
    bindings,
    iova_bitmap,
    mm::may_warn, //
};

use super::{
    set::OpenRef,
    Device, //
};

/// # Errors
///
/// Returns `ENOTTY` if the device cannot log.
fn ops(device: &Device) -> Result<&bindings::vfio_log_ops> {
    // SAFETY: The pointer is null, or it was set before the device's registration and points to a
    // table that outlives the device.
    unsafe { (*device.as_ptr()).log_ops.as_ref() }.ok_or(ENOTTY)
}

/// Returns `Ok` if the device can log, else `ENOTTY`.
pub(crate) fn check(device: &Device) -> Result {
    ops(device).map(|_| ())
}

/// Ranges of device addresses that don't overlap, in an interval tree that is passed to a driver.
///
/// # Invariants
///
/// The tree at `root` contains exactly the elements of `nodes`. The nodes do not move, because the
/// vector never grows beyond its initial capacity.
pub(crate) struct Ranges {
    nodes: KVec<bindings::interval_tree_node>,
    root: bindings::rb_root_cached,
}

impl Ranges {
    /// Creates an empty set of ranges with room for `count` of them.
    ///
    /// # Errors
    ///
    /// Returns `ENOMEM`.
    pub(crate) fn with_capacity(count: usize) -> Result<Self> {
        // INVARIANT: There are no nodes, and the tree is empty.
        Ok(Self {
            nodes: KVec::with_capacity(count, GFP_KERNEL)?,
            root: pin_init::zeroed(),
        })
    }

    /// Adds the range from `first` to `last`, both inclusive.
    ///
    /// # Errors
    ///
    /// Returns `EINVAL` if the range overlaps another one; `E2BIG` if there is no room.
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
        // SAFETY: The node is new, and does not move while the tree exists.
        // INVARIANT: The new node is now also in the tree.
        unsafe { bindings::interval_tree_insert(node, &mut self.root) };
        Ok(())
    }
}

/// Starts logging writes to `ranges` with a granularity of `page_size`, which the driver may
/// change.
///
/// # Errors
///
/// Returns the driver's error, or `ENOTTY` if the driver cannot start logging.
pub(crate) fn start(device: &OpenRef, mut ranges: Ranges, page_size: &mut u64) -> Result {
    let start = ops(device)?.log_start.ok_or(ENOTTY)?;
    let count = ranges.nodes.len() as u32;
    // SAFETY: The device is open. The tree is valid during the call, and the driver may change it
    // then.
    to_result(unsafe { start(device.as_ptr(), &mut ranges.root, count, page_size) })
}

/// Stops logging.
pub(crate) fn stop(device: &OpenRef) -> Result<isize> {
    let stop = ops(device)?.log_stop.ok_or(ENOTTY)?;
    // SAFETY: The device is open.
    let ret = unsafe { stop(device.as_ptr()) };
    to_result(ret.min(0))?;
    Ok(ret as isize)
}

/// Sets the bits of pages written since the last report in the user's bitmap, and clears them in
/// the driver's log.
///
/// # Errors
///
/// Returns `EOPNOTSUPP` if the driver can't report on this kernel; `ENOTTY` if the driver cannot
/// report at all; or the driver's error.
pub(crate) fn report(device: &OpenRef, request: &iova_bitmap::Request) -> Result {
    let read = ops(device)?.log_read_and_clear.ok_or(ENOTTY)?;
    iova_bitmap::report(request, &mut |bitmap| {
        let (iova, length) = (request.iova() as c_ulong, request.length() as c_ulong);
        // SAFETY: The device is open, and `bitmap` is valid for a driver to fill in.
        to_result(unsafe { read(device.as_ptr(), iova, length, bitmap) })
    })
}

/// Merges neighbouring ranges in a tree of `current` ranges until at most `wanted` remain. If one
/// range is wanted, merges all, whatever `current` is.
///
/// # Safety
///
/// `root` is a valid tree that only the caller uses.
pub(crate) unsafe fn combine_ranges(
    root: *mut bindings::rb_root_cached,
    mut current: u32,
    wanted: u32,
) {
    let all = wanted <= 1;
    while all || current > wanted {
        // SAFETY: By this function's contract.
        let Some((left, right)) = (unsafe { closest_neighbours(root) }) else {
            // SAFETY: By this function's contract.
            let is_empty = unsafe { (*root).rb_root.rb_node.is_null() };
            if (is_empty || !all) && may_warn() {
                pr_warn!(
                    "vfio_combine_iova_ranges: the tree has fewer ranges than the argument cur_nodes\n"
                );
            }
            return;
        };
        // SAFETY: Both nodes are in the tree. Extending a node to the end of its neighbour keeps
        // the order. It is inserted again because the tree caches the ends of ranges.
        unsafe {
            bindings::interval_tree_remove(right, root);
            bindings::interval_tree_remove(left, root);
            (*left).last = (*right).last;
            bindings::interval_tree_insert(left, root);
        }
        current = current.saturating_sub(1);
    }
}

/// Returns the first pair of neighbours with the smallest gap between them.
///
/// # Safety
///
/// As for [`combine_ranges`].
unsafe fn closest_neighbours(
    root: *mut bindings::rb_root_cached,
) -> Option<(
    *mut bindings::interval_tree_node,
    *mut bindings::interval_tree_node,
)> {
    let mut closest = None;
    let mut smallest = usize::MAX;
    // SAFETY: By this function's contract.
    let mut left = unsafe { bindings::interval_tree_iter_first(root, 0, usize::MAX) };
    while !left.is_null() {
        // SAFETY: `left` is in the tree.
        let right = unsafe { bindings::interval_tree_iter_next(left, 0, usize::MAX) };
        if !right.is_null() {
            // SAFETY: Both are in the tree.
            let gap = unsafe { (*right).start.wrapping_sub((*left).last) };
            // The largest gap is possible if there are only two ranges.
            if gap < smallest || closest.is_none() {
                smallest = gap;
                closest = Some((left, right));
            }
        }
        left = right;
    }
    closest
}
