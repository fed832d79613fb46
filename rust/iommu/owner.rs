// SPDX-License-Identifier: GPL-2.0

//! Who may use the DMA of a group's devices.

use kernel::{
    error::to_result,
    prelude::*,
    sync::aref::ARef, //
};

use crate::bindings;

use super::Group;

/// The claim of a program on the DMA of a group; dropping it gives the DMA back to the kernel.
///
/// While it is held, drivers that use the DMA API can't bind to the group's devices, and the devices
/// reach nothing until the group is attached to a domain.
///
/// # Invariants
///
/// The group's DMA was claimed in the name of this value, and not released since.
pub struct DmaOwner(ARef<Group>);

impl DmaOwner {
    /// Claims the DMA of `group`.
    ///
    /// # Errors
    ///
    /// `EPERM` if somebody owns it: a driver of the kernel that is bound to one of the devices, or
    /// another program. `EBUSY` if the group isn't in its default domain. `EINVAL` if firmware needs
    /// a device to reach memory at all times. Others from switching the group to where its devices
    /// reach nothing.
    pub fn claim(group: ARef<Group>) -> Result<Self> {
        let token = group.as_ptr().cast();
        // SAFETY: The group is valid. The token only has to differ from those of other owners, and
        // while the claim is held nobody else uses this group's address for one.
        to_result(unsafe { bindings::iommu_group_claim_dma_owner(group.as_ptr(), token) })?;
        // INVARIANT: The claim succeeded.
        Ok(Self(group))
    }

    /// The group.
    pub fn group(&self) -> &ARef<Group> {
        &self.0
    }
}

impl Drop for DmaOwner {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the claim is held, and it is released once.
        unsafe { bindings::iommu_group_release_dma_owner(self.0.as_ptr()) };
    }
}
