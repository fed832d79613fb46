// SPDX-License-Identifier: GPL-2.0

//! IOMMU groups for VFIO: who owns a group, which drivers its devices have, why a claim fails, and
//! which iovas its devices can use.
//!
//! A group ([`kernel_ext::iommu::Group`]) is the unit of isolation. All of its devices are assigned
//! to one user together: that user claims the group's DMA ([`DmaOwner`]), which fails while a
//! kernel driver uses one of the devices ([`Binding`]). There is no interface to unbind a whole
//! group from its drivers; [`warn_claim_failed`] tells the administrator which of its devices
//! prevent the claim. Once it is claimed, the group can be attached to the user's address space, in
//! which it cannot use the iovas of its [`reserved_regions()`]; [`ranges`] has the others.

#![deny(unsafe_code)]

#[allow(unsafe_code)]
#[path = "binding/abi.rs"]
mod binding;
mod diagnosis;
#[allow(unsafe_code)]
#[path = "owner/abi.rs"]
mod owner;
pub mod ranges;
#[allow(unsafe_code)]
#[path = "reserved_regions/abi.rs"]
mod reserved_regions;

use kernel::prelude::*;

pub use binding::Binding;
pub use diagnosis::warn_claim_failed;
pub use owner::DmaOwner;
pub use reserved_regions::{
    reserved_regions,
    ReservedKind,
    ReservedRegion, //
};

kernel_ext::compat::module! {
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
