// SPDX-License-Identifier: GPL-2.0

//! Address ranges that devices of a group use for something else than memory.

use core::ptr;

use kernel::{
    container_of,
    error::to_result,
    prelude::*,
    types::Opaque, //
};

use crate::bindings;

use super::Group;

/// Why addresses are reserved: `enum iommu_resv_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservedKind {
    /// Firmware wants them mapped one to one at all times.
    Direct,
    /// Firmware wants them mapped one to one, but a user of the device may do without.
    DirectRelaxable,
    /// They must not be mapped.
    Reserved,
    /// The hardware takes writes there for interrupts.
    Msi,
    /// Software chose to translate writes there to the interrupt controller.
    SoftwareMsi,
}

/// A reserved range.
#[derive(Clone, Copy, Debug)]
pub struct ReservedRegion {
    /// The first address.
    pub start: u64,
    /// The length in bytes.
    pub length: u64,
    /// Why it is reserved.
    pub kind: ReservedKind,
}

/// The list that `iommu_get_group_resv_regions()` fills; it frees the entries.
///
/// # Invariants
///
/// A list head whose entries are `iommu_resv_region`s made by `kmalloc`, which belong to it.
struct RegionList(Opaque<bindings::list_head>);

impl RegionList {
    /// Takes out the first entry.
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
        // SAFETY: The entry and its successor are linked in this list, which is ours alone.
        unsafe {
            let next = (*entry).next;
            (*head).next = next;
            (*next).prev = head;
        }
        // SAFETY: The region came from `kmalloc`, by the type invariant, and is out of the list.
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

impl Group {
    /// The reserved ranges of all devices in the group, in ascending order within each kind.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn reserved_regions(&self) -> Result<KVec<ReservedRegion>> {
        let list = RegionList(Opaque::uninit());
        let head = list.0.get();
        // SAFETY: The head is ours; this makes it an empty list.
        unsafe {
            (*head).next = head;
            (*head).prev = head;
        }
        // INVARIANT: The function adds regions that it allocates with `kmalloc`.
        // SAFETY: The group is valid and `head` an empty list.
        to_result(unsafe { bindings::iommu_get_group_resv_regions(self.as_ptr(), head) })?;
        let mut regions = KVec::new();
        while let Some(region) = list.pop() {
            regions.push(region, GFP_KERNEL)?;
        }
        Ok(regions)
    }
}
