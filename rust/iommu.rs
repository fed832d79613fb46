// SPDX-License-Identifier: GPL-2.0

//! Groups of devices, address spaces for them, and what is mapped there.
//!
//! The types are made so that a device never reaches memory which isn't held for it: an
//! [`Attachment`] keeps its [`Domain`] alive, and a [`Mapping`] keeps both its domains and the pages
//! in it, which it gives back only after the last domain has forgotten them.
//!
//! C header: [`include/linux/iommu.h`](srctree/include/linux/iommu.h)

mod domain;
mod group;
mod mapping;
pub mod member;
mod owner;
pub mod pasid;
mod resv;

use kernel::{
    ffi::c_int,
    impl_flags, //
};

use crate::bindings;

pub use domain::{
    Attachment,
    Domain,
    DomainPtr,
    Domains, //
};
pub use group::Group;
pub use mapping::{
    Frames,
    Mapping, //
};
pub use owner::DmaOwner;
pub use resv::{
    ReservedKind,
    ReservedRegion, //
};

impl_flags!(
    /// What a device may do with memory.
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
    /// The `IOMMU_*` bits `raw`, those of them that are permissions.
    pub fn from_raw(raw: c_int) -> Self {
        let mut prot = Self::default();
        for access in [Access::Read, Access::Write] {
            if raw as u32 & access as u32 != 0 {
                prot |= access;
            }
        }
        prot
    }

    /// The permissions as `IOMMU_*` bits.
    fn as_raw(self) -> c_int {
        u32::from(self) as c_int
    }
}
