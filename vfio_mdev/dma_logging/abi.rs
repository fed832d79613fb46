// SPDX-License-Identifier: GPL-2.0

//! `struct vfio_log_ops` of a driver's devices.

use core::marker::PhantomData;

use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    error::from_result,
    ffi::{
        c_int,
        c_ulong, //
    },
    prelude::*, //
};
use kernel_ext::{
    bindings,
    iova::Range,
    iova_bitmap::IovaBitmap, //
};

use crate::{
    driver::Device,
    instance::Instance, //
};

/// The callbacks from VFIO.
///
/// VFIO calls all of them with the `struct vfio_device` of an open [`Instance<D>`].
pub(crate) struct LogOps<D>(PhantomData<D>);

impl<D: Device> LogOps<D> {
    pub(crate) const TABLE: &'static bindings::vfio_log_ops = &bindings::vfio_log_ops {
        log_start: Some(Self::start_callback),
        log_stop: Some(Self::stop_callback),
        log_read_and_clear: Some(Self::read_and_clear_callback),
    };

    /// # Safety
    ///
    /// See [`LogOps`]. `ranges` is an interval tree of `count` ranges, and `page_size` is valid.
    unsafe extern "C" fn start_callback(
        device: *mut bindings::vfio_device,
        ranges: *mut bindings::rb_root_cached,
        count: u32,
        page_size: *mut u64,
    ) -> c_int {
        // SAFETY: By this function's contract.
        let (this, page_size) = unsafe { (Instance::<D>::from_raw(device), &mut *page_size) };
        from_result(|| {
            // SAFETY: By this function's contract.
            let ranges = unsafe { collect(ranges, count) }?;
            *page_size = this.dma_logging().start(ranges, *page_size)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`LogOps`].
    unsafe extern "C" fn stop_callback(device: *mut bindings::vfio_device) -> c_int {
        // SAFETY: By this function's contract.
        unsafe { Instance::<D>::from_raw(device) }
            .dma_logging()
            .stop();
        0
    }

    /// # Safety
    ///
    /// See [`LogOps`]. `bitmap` may be written during the call.
    unsafe extern "C" fn read_and_clear_callback(
        device: *mut bindings::vfio_device,
        iova: c_ulong,
        length: c_ulong,
        bitmap: *mut bindings::iova_bitmap,
    ) -> c_int {
        // SAFETY: By this function's contract.
        let (this, mut bitmap) = unsafe {
            (
                Instance::<D>::from_raw(device),
                IovaBitmap::from_raw(bitmap, iova as u64, length as u64),
            )
        };
        from_result(|| {
            this.dma_logging()
                .report(bitmap.asked(), |iova, length| bitmap.set(iova, length))?;
            Ok(0)
        })
    }
}

/// Collects the ranges of an interval tree.
///
/// # Safety
///
/// `tree` is a valid interval tree, which no other thread changes.
unsafe fn collect(tree: *mut bindings::rb_root_cached, count: u32) -> Result<KVec<Range>> {
    let mut ranges = KVec::with_capacity(count as usize, GFP_KERNEL_ACCOUNT)?;
    // SAFETY: By this function's contract.
    let mut node = unsafe { bindings::interval_tree_iter_first(tree, 0, c_ulong::MAX) };
    while !node.is_null() {
        // SAFETY: `node` is a node of the tree.
        let (start, last) = unsafe { ((*node).start as u64, (*node).last as u64) };
        ranges.push(Range { start, last }, GFP_KERNEL_ACCOUNT)?;
        // SAFETY: As above.
        node = unsafe { bindings::interval_tree_iter_next(node, 0, c_ulong::MAX) };
    }
    Ok(ranges)
}
