// SPDX-License-Identifier: GPL-2.0

//! IOMMU groups for VFIO: ownership of a group, the reasons why a claim fails, and the usable IOVA
//! ranges.
//!
//! A group is the unit of isolation. All of its devices are assigned to one user together: that
//! user claims the group's DMA ([`DmaOwner`]), which fails while a kernel driver uses one of the
//! devices. The group is then attached to an address space of the user's ([`Domain`]). There is no
//! interface to unbind a whole group from its drivers; [`refusal`] tells the administrator which
//! of its devices prevent the claim.

#![deny(unsafe_code)]

pub mod ranges;
pub mod refusal;

use kernel::prelude::*;

pub use kernel_ext::iommu::{
    Attachment,
    DmaOwner,
    Domain,
    Group,
    ReservedKind,
    ReservedRegion, //
};

pub use refusal::explain_refusal;

module! {
    type: IommuGroup,
    name: "iommu_group",
    authors: ["The VFIO in Rust authors"],
    description: "IOMMU groups for VFIO",
    license: "GPL v2",
}

/// The module. It only provides code to the other modules.
struct IommuGroup;

impl kernel::Module for IommuGroup {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self)
    }
}
