// SPDX-License-Identifier: GPL-2.0

//! Reserved regions: iovas that the devices of a group use for purposes other than memory.

use core::ptr;

use kernel::{
    container_of,
    error::to_result,
    prelude::*,
    types::Opaque, //
};

use kernel_ext::{
    array_vec::SmallVec,
    bindings,
    iommu::Group, //
};

/// The type of a reserved region: `enum iommu_resv_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservedKind {
    /// Firmware requires that the region is identity-mapped at all times.
    Direct,
    /// Firmware requests that the region is identity-mapped, but a user of the device may omit
    /// this.
    DirectRelaxable,
    /// The region must not be mapped.
    Reserved,
    /// The hardware interprets writes to the region as interrupts.
    Msi,
    /// Software maps the region to the interrupt controller.
    SoftwareMsi,
}

/// A reserved region.
#[derive(Clone, Copy, Debug)]
pub struct ReservedRegion {
    /// The first iova.
    pub start: u64,
    /// The length in bytes.
    pub length: u64,
    /// The type of the region.
    pub kind: ReservedKind,
}

/// The list that `iommu_get_group_resv_regions()` fills; dropping it frees the entries.
///
/// # Invariants
///
/// A list head that owns its entries, which are `iommu_resv_region`s from `kmalloc`.
struct RegionList(Opaque<bindings::list_head>);

impl RegionList {
    /// Removes and returns the first entry.
    fn pop(&self) -> Option<ReservedRegion> {
        let head = self.0.get();
        // SAFETY: The head is initialised, by the type invariant.
        let entry = unsafe { (*head).next };
        if ptr::eq(entry, head) {
            return None;
        }
        // SAFETY: By the type invariant the entry is embedded in an `iommu_resv_region`.
        let region = unsafe { container_of!(entry, bindings::iommu_resv_region, list) };
        // SAFETY: The region is valid until it is freed below.
        let (start, length, kind) = unsafe { ((*region).start, (*region).length, (*region).type_) };
        // SAFETY: The entry and its successor are linked in this list, to which this value has
        // exclusive access.
        unsafe {
            let next = (*entry).next;
            (*head).next = next;
            (*next).prev = head;
        }
        // SAFETY: By the type invariant the region came from `kmalloc`, and it was removed from the
        // list.
        unsafe { bindings::kfree(region.cast()) };
        Some(ReservedRegion {
            start,
            length: length as u64,
            kind: match kind {
                bindings::iommu_resv_type_IOMMU_RESV_DIRECT => ReservedKind::Direct,
                bindings::iommu_resv_type_IOMMU_RESV_DIRECT_RELAXABLE => {
                    ReservedKind::DirectRelaxable
                }
                bindings::iommu_resv_type_IOMMU_RESV_MSI => ReservedKind::Msi,
                bindings::iommu_resv_type_IOMMU_RESV_SW_MSI => ReservedKind::SoftwareMsi,
                _ => ReservedKind::Reserved,
            },
        })
    }
}

impl Drop for RegionList {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

/// Returns the reserved regions of all devices in `group`, in ascending order within each type.
///
/// # Errors
///
/// `ENOMEM`.
pub fn reserved_regions(group: &Group) -> Result<SmallVec<ReservedRegion, 4>> {
    let list = RegionList(Opaque::uninit());
    let head = list.0.get();
    // SAFETY: `list` owns the head; this initialises it as an empty list.
    unsafe {
        (*head).next = head;
        (*head).prev = head;
    }
    // INVARIANT: The function adds regions that it allocates with `kmalloc`.
    // SAFETY: The group is valid, and `head` is an empty list.
    to_result(unsafe { bindings::iommu_get_group_resv_regions(group.as_ptr(), head) })?;
    let mut regions = SmallVec::new();
    while let Some(region) = list.pop() {
        regions.push(region, GFP_KERNEL)?;
    }
    Ok(regions)
}
