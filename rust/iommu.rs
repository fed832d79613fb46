// SPDX-License-Identifier: GPL-2.0

//! IOMMU groups, domains and mappings.
//!
//! The types ensure that a device never reaches memory that isn't held for it. An [`Attachment`]
//! keeps its [`Domain`] alive, and ends with the claim of the group's DMA. A [`Mapping`] keeps both
//! its domains and its pages. It releases the pages only after they were unmapped from the last
//! domain.
//!
//! C header: [`include/linux/iommu.h`](srctree/include/linux/iommu.h)

mod claim;
mod domain;
mod group;
mod mapping;

use kernel::{
    ffi::c_int,
    impl_flags, //
};

use crate::bindings;

pub(crate) use claim::Claim;
pub use claim::{
    Attachment,
    ClaimedGroup, //
};
pub use domain::{
    common_page_sizes,
    Domain,
    Domains,
    NewDomain, //
};
pub(crate) use group::init_lock;
pub use group::{
    raw_device,
    Group,
    Member,
    SoftwareGroup, //
};
pub use mapping::{
    Frames,
    Mapping, //
};

impl_flags!(
    /// The permissions of a device for memory.
    #[derive(Debug, Clone, Default, Copy, PartialEq, Eq)]
    pub struct Prot(u32);

    /// One permission of [`Prot`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Access {
        /// The device may read.
        Read = bindings::IOMMU_READ,
        /// The device may write.
        Write = bindings::IOMMU_WRITE,
    }
);

impl Prot {
    /// Returns the permissions in the `IOMMU_*` bits `raw`. Other bits are ignored.
    pub fn from_raw(raw: c_int) -> Self {
        let mut prot = Self::default();
        for access in [Access::Read, Access::Write] {
            if raw as u32 & access as u32 != 0 {
                prot |= access;
            }
        }
        prot
    }

    /// Returns the permissions as `IOMMU_*` bits.
    fn as_raw(self) -> c_int {
        u32::from(self) as c_int
    }
}
