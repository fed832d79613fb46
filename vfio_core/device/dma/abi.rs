// SPDX-License-Identifier: GPL-2.0

//! Access of drivers to the memory that userspace mapped for their device: `vfio_pin_pages()`,
//! `vfio_unpin_pages()` and `vfio_dma_rw()`.

use kernel::{
    ffi::{
        c_int,
        c_void, //
    },
    page::PAGE_SIZE,
    prelude::*, //
};
use kernel_ext::{
    bindings,
    mm::may_warn, //
};

#[cfg(CONFIG_IOMMUFD)]
use super::standard::access_of_open;
use super::Device;
use crate::group::Translation;

/// The maximum number of pages per pin or unpin call: `VFIO_PIN_PAGES_MAX_ENTRIES`.
const MAX_PAGES: c_int = (PAGE_SIZE / core::mem::size_of::<usize>()) as c_int;

/// Returns the address space of a container in which a device is open, or `None` if the device is
/// not open. Another device of its group may be open nevertheless.
///
/// # Safety
///
/// If the device is open, it stays open until this function returns.
unsafe fn translation(device: &Device) -> Option<Translation> {
    if device.open_count() == 0 {
        return None;
    }
    // SAFETY: The device is open, and by this function's contract it stays open.
    unsafe { device.group_of_open() }?.translation()
}

/// Pins `npage` pages starting at `iova`, stores them in `pages`, and returns their number.
///
/// # Errors
///
/// Returns `EINVAL` if the device is not open or its driver has no `dma_unmap` callback, or if
/// there is nothing to pin; `E2BIG` above [`MAX_PAGES`]; or the IOMMU driver's error.
///
/// # Safety
///
/// If the device is open, it stays open until this function returns. `pages` is null or has room
/// for `npage` pointers.
pub(crate) unsafe fn pin_pages(
    device: &Device,
    iova: u64,
    npage: c_int,
    prot: c_int,
    pages: *mut *mut bindings::page,
) -> Result<c_int> {
    if pages.is_null() || npage == 0 || device.ops().dma_unmap.is_none() {
        return Err(EINVAL);
    }
    #[cfg(CONFIG_IOMMUFD)]
    // SAFETY: By this function's contract.
    if let Some(access) = unsafe { access_of_open(device) } {
        let count = usize::try_from(npage).map_err(|_| EINVAL)?;
        let write = prot as u32 & bindings::IOMMU_WRITE != 0;
        // SAFETY: By this function's contract.
        return unsafe { access.pin_pages(iova, count, pages, write) }.map(|()| npage);
    }
    // SAFETY: By this function's contract.
    let Translation { iommu, group } = unsafe { translation(device) }.ok_or(EINVAL)?;
    if npage > MAX_PAGES {
        return Err(E2BIG);
    }
    // SAFETY: By this function's contract.
    unsafe { iommu.pin_pages(&group, iova, npage, prot, pages) }
}

/// Unpins `npage` pages starting at `iova`.
///
/// # Safety
///
/// If the device is open, it stays open until this function returns. Its driver pinned the pages,
/// and does not use them any more.
pub(crate) unsafe fn unpin_pages(device: &Device, iova: u64, npage: c_int) {
    #[cfg(CONFIG_IOMMUFD)]
    // SAFETY: By this function's contract.
    if let Some(access) = unsafe { access_of_open(device) } {
        let count = usize::try_from(npage).unwrap_or(0);
        // SAFETY: By this function's contract.
        if unsafe { access.unpin_pages(iova, count) }.is_err() {
            warn_invalid_unpin(device, npage, "invalid number of pages");
        }
        return;
    }
    // SAFETY: By this function's contract.
    let translation = unsafe { translation(device) };
    let problem = match translation {
        Some(Translation { iommu, .. }) if (1..=MAX_PAGES).contains(&npage) => {
            // SAFETY: By this function's contract.
            return unsafe { iommu.unpin_pages(iova, npage) };
        }
        Some(_) => "invalid number of pages",
        None => "the device is not open",
    };
    warn_invalid_unpin(device, npage, problem);
}

/// Logs that a driver's request to unpin pages was ignored.
fn warn_invalid_unpin(device: &Device, npage: c_int, problem: &str) {
    if may_warn() {
        dev_warn!(
            device.parent(),
            "vfio_unpin_pages: invalid request for {} pages: {}\n",
            npage,
            problem
        );
    }
}

/// Copies between a kernel buffer and the memory that is mapped at `iova`.
///
/// # Errors
///
/// Returns `EINVAL` if the device is not open or there is nothing to copy; or the IOMMU driver's
/// error.
///
/// # Safety
///
/// If the device is open, it stays open until this function returns. `data` is null or a kernel
/// buffer of `len` bytes, which is read if `write` is true, and written otherwise.
pub(crate) unsafe fn dma_rw(
    device: &Device,
    iova: u64,
    data: *mut c_void,
    len: usize,
    write: bool,
) -> Result<c_int> {
    if data.is_null() || len == 0 {
        return Err(EINVAL);
    }
    #[cfg(CONFIG_IOMMUFD)]
    // SAFETY: By this function's contract.
    if let Some(access) = unsafe { access_of_open(device) } {
        // SAFETY: By this function's contract.
        return unsafe { access.copy(iova, data, len, write) }.map(|()| 0);
    }
    // SAFETY: By this function's contract.
    let Translation { iommu, .. } = unsafe { translation(device) }.ok_or(EINVAL)?;
    // SAFETY: By this function's contract.
    unsafe { iommu.dma_rw(iova, data, len, write) }
}
