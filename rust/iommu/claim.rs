// SPDX-License-Identifier: GPL-2.0

//! Groups whose DMA is claimed, and their attachment to domains, which ends with the claim.

use core::ops::Deref;

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        Mutex, //
    },
    warn_on, //
};

use super::{
    Domain,
    Group, //
};

/// The claim of a group's DMA by the user on whose behalf the backend acts. There is a `DmaOwner` of
/// the crate `iommu_group`, or the core in C has claimed the group.
///
/// # Invariants
///
/// Until [`end`](Self::end) is called, the DMA of the group is claimed, and the group has a device.
/// The group is attached to `domain`.
#[pin_data]
pub(crate) struct Claim {
    group: ARef<Group>,
    #[pin]
    domain: Mutex<Option<Arc<Domain>>>,
}

impl Claim {
    /// Wraps a group that is not attached to a domain.
    ///
    /// # Safety
    ///
    /// Until [`end`](Self::end) is called, the DMA of the group is claimed, and its last device is
    /// not removed.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) unsafe fn new(group: &Group) -> Result<Arc<Self>> {
        // INVARIANT: By the contract of this function.
        Arc::pin_init(
            pin_init!(Self {
                group: group.into(),
                domain <- new_mutex!(None, "kernel_ext::Claim::domain"),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Returns whether `group` is the group.
    pub(crate) fn is_of(&self, group: &Group) -> bool {
        *self.group == *group
    }

    /// Ends the claim. The backend has dropped the attachment. If not, the group is detached here.
    pub(crate) fn end(&self) {
        warn_on!(self.detach());
    }

    /// Detaches the group from its domain. Returns whether it was attached.
    fn detach(&self) -> bool {
        let mut attached = self.domain.lock();
        let domain = attached.take();
        if let Some(domain) = &domain {
            // SAFETY: By the type invariant the group is attached to the domain.
            unsafe { domain.detach(&self.group) };
        }
        drop(attached);
        domain.is_some()
    }
}

/// A group whose DMA is claimed.
///
/// # Invariants
///
/// The claim does not end during `'a`.
#[derive(Clone, Copy)]
pub struct ClaimedGroup<'a>(&'a Arc<Claim>);

impl Deref for ClaimedGroup<'_> {
    type Target = Group;

    fn deref(&self) -> &Group {
        &self.0.group
    }
}

impl<'a> ClaimedGroup<'a> {
    /// Wraps a claim.
    ///
    /// # Safety
    ///
    /// The claim does not end during `'a`.
    pub(crate) unsafe fn new(claim: &'a Arc<Claim>) -> Self {
        // INVARIANT: By the contract of this function.
        Self(claim)
    }

    /// Attaches the group to `domain`.
    ///
    /// # Errors
    ///
    /// `ENODEV` if one of the devices has no IOMMU; `EBUSY` if the group is attached to a domain, or
    /// is being reset; `EINVAL` if the domain is not compatible with the group's IOMMU, or is
    /// retired; the errors of the IOMMU driver.
    pub(super) fn attach(self, domain: Arc<Domain>) -> Result<Attachment> {
        let mut attached = self.0.domain.lock();
        if attached.is_some() {
            return Err(EBUSY);
        }
        // SAFETY: By the type invariants the group is claimed and has a device. `Claim` detaches it.
        unsafe { domain.attach(&self) }?;
        // INVARIANT: The group was just attached.
        *attached = Some(domain.clone());
        drop(attached);
        Ok(Attachment {
            domain,
            claim: self.0.clone(),
        })
    }
}

/// The attachment of a group to a domain. Dropping it detaches the group.
///
/// # Invariants
///
/// The group of `claim` is attached to `domain`, unless the claim has ended.
pub struct Attachment {
    domain: Arc<Domain>,
    claim: Arc<Claim>,
}

impl Attachment {
    /// Returns the group.
    pub fn group(&self) -> &Group {
        &self.claim.group
    }

    /// Returns a counted reference to the group.
    pub fn group_ref(&self) -> ARef<Group> {
        self.claim.group.clone()
    }

    /// Returns the domain.
    pub fn domain(&self) -> &Arc<Domain> {
        &self.domain
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.claim.detach();
    }
}
