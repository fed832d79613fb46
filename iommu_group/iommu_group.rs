// SPDX-License-Identifier: GPL-2.0

//! IOMMU groups as VFIO sees them: who owns one, why nobody may, and which addresses it can use.
//!
//! A group is the unit of isolation. Its devices are given to a program together: the program claims
//! the group's DMA ([`DmaOwner`]), which fails while a driver of the kernel uses one of the devices,
//! and the group is then switched to an address space of the program's ([`Domain`]). There is no
//! interface that unbinds a whole group from its drivers; [`refusal`] tells the administrator which
//! of its devices stand in the way.

#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod abi;
pub mod ranges;
pub mod refusal;
pub mod software;

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

/// The module: it holds code, and who moves devices between software groups.
struct IommuGroup;

impl kernel::Module for IommuGroup {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        abi::init();
        Ok(Self)
    }
}
