// SPDX-License-Identifier: GPL-2.0

//! Ownership of the DMA of a group's devices.

use kernel::{
    error::to_result,
    prelude::*,
    sync::aref::ARef, //
};

use kernel_ext::{
    bindings,
    iommu::Group, //
};

/// Userspace ownership of the DMA of a group; dropping it returns the DMA to the kernel.
///
/// While it exists, drivers that use the DMA API can't bind to the group's devices, and the devices
/// are in the blocking domain until the group is attached to another one.
///
/// # Invariants
///
/// The group's DMA was claimed for this value, and hasn't been released since.
pub struct DmaOwner(ARef<Group>);

impl DmaOwner {
    /// Claims the DMA of `group`.
    ///
    /// # Errors
    ///
    /// `EPERM` if the DMA has an owner: a kernel driver that is bound to one of the devices, or
    /// another process. `EBUSY` if the group isn't attached to its default domain. `EINVAL` if
    /// firmware requires that a device can reach memory at all times. Other errors from switching
    /// the group to its blocking domain. `ENODEV` if the group has no
    /// device, or one of its devices has no IOMMU.
    ///
    /// The caller prevents the removal of the group's last device during the call.
    pub fn claim(group: ARef<Group>) -> Result<Self> {
        group.require_iommu()?;
        let token = group.as_ptr().cast();
        // SAFETY: The group is valid, and has a device by the check above and the contract of this
        // function. The token only has to differ from those of other owners, and
        // no other owner uses the address of this group as a token while the claim is held.
        to_result(unsafe { bindings::iommu_group_claim_dma_owner(group.as_ptr(), token) })?;
        // INVARIANT: The claim succeeded.
        Ok(Self(group))
    }

    /// Returns the group.
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
