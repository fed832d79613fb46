// SPDX-License-Identifier: GPL-2.0

//! The state of one container.
//!
//! `Documentation/locking.rst` describes the locks and their order.

#[allow(unsafe_code)]
mod abi;

use core::iter;

use kernel::{
    prelude::*,
    sync::{
        aref::ARef,
        atomic::AtomicFlag,
        Arc, //
    },
};

use iommu_group::ranges::Ranges;

use kernel_ext::{
    array_vec::SmallVec,
    iommu::{
        common_page_sizes,
        Attachment,
        Domain,
        Domains,
        Group, //
    },
    iommu_driver::DeviceList,
    mm::Owner,
    task::TaskLabel, //
};

use crate::{
    error::{
        RequestError,
        RequestResult, //
    },
    pages::DmaPages,
    space::{
        Space,
        SpaceTypes, //
    },
    stats::Stats,
    DMA_ENTRY_LIMIT, //
};

pub(crate) use self::abi::{
    add_to_list,
    init_lock,
    remove_from_list,
    CONTAINERS, //
};

/// The address space of a container: `struct vfio_iommu` in C VFIO.
#[pin_data]
pub(crate) struct Container {
    /// Whether the container follows the rules of `VFIO_TYPE1v2_IOMMU` instead of
    /// `VFIO_TYPE1_IOMMU`.
    pub(crate) v2: bool,
    /// The task that selected this backend with `VFIO_SET_IOMMU`.
    pub(crate) opener: TaskLabel,
    /// Request statistics.
    pub(crate) stats: Stats,
    /// The maximum number of mappings.
    pub(crate) limit: u32,
    /// The mappings, the groups and the process that mapped last.
    #[pin]
    pub(crate) space: Space<Self>,
    /// The open devices whose drivers pin pages.
    pub(crate) devices: Arc<DeviceList>,
}

/// An attached group that has an IOMMU: `struct vfio_iommu_group` in C VFIO.
pub(crate) struct AttachedGroup {
    /// The group's attachment to its domain.
    pub(crate) attachment: Attachment,
    /// Whether the devices of the group write only pages that their drivers have pinned. Set when
    /// a driver pins pages for the first time, and never reset.
    pub(crate) pinned_page_dirty_scope: AtomicFlag,
}

/// A domain and the groups in it: `struct vfio_domain` in C VFIO.
pub(crate) struct GroupDomain {
    /// The groups. Each holds a reference to the domain.
    pub(crate) groups: SmallVec<AttachedGroup, 1>,
    /// The domain.
    pub(crate) domain: Arc<Domain>,
}

impl AttachedGroup {
    /// Creates the entry of a group that has just been attached.
    pub(crate) fn new(attachment: Attachment) -> Self {
        Self {
            attachment,
            pinned_page_dirty_scope: AtomicFlag::new(false),
        }
    }
}

impl GroupDomain {
    /// Returns the index of `group`.
    pub(crate) fn position(&self, group: &Group) -> Option<usize> {
        self.groups
            .iter()
            .position(|member| member.attachment.group() == group)
    }
}

/// The groups and domains of a container, and the iova ranges that can be mapped. Changed only with
/// all iovas locked. `VFIO_IOMMU_GET_INFO` and debugfs read it without locking iovas, so a change
/// of what they report is made in one call of [`WholeGuard::layout`].
///
/// [`WholeGuard::layout`]: crate::space::WholeGuard::layout
pub(crate) struct Layout {
    /// The domains of groups with an IOMMU.
    pub(crate) domains: SmallVec<GroupDomain, 1>,
    /// The same domains, as a set that mappings share. While a domain is being removed, the set
    /// still has it.
    pub(crate) set: Arc<Domains>,
    /// The page sizes that all of these domains support and that a mapping may use, as a bitmap.
    page_sizes: u64,
    /// The groups of emulated devices, which have no IOMMU.
    pub(crate) emulated: SmallVec<ARef<Group>, 1>,
    /// Whether dirty tracking is enabled. If so, every mapping has memory to record dirty pages.
    pub(crate) dirty_page_tracking: bool,
    /// The iova ranges that may be mapped.
    pub(crate) ranges: Ranges,
}

impl Layout {
    /// Returns whether the container has an IOMMU domain.
    pub(crate) fn has_iommu(&self) -> bool {
        !self.domains.is_empty()
    }

    /// Checks that the container has a group. The core gives each request a reference to the
    /// address space. A request that has waited may therefore run after the last group was
    /// detached, when the address space is no longer in use.
    ///
    /// # Errors
    ///
    /// `EINVAL`, as for a container without groups.
    pub(crate) fn check_used(&self) -> RequestResult {
        if self.has_iommu() || !self.emulated.is_empty() {
            return Ok(());
        }
        Err(RequestError::new(EINVAL, c"the container has no group"))
    }

    /// Returns whether `group` is attached.
    pub(crate) fn has_group(&self, group: &Group) -> bool {
        self.emulated.iter().any(|other| **other == *group)
            || self
                .domains
                .iter()
                .any(|domain| domain.position(group).is_some())
    }

    /// Adds a domain.
    ///
    /// # Errors
    ///
    /// Returns the domain if there is no memory. The caller drops it without the mutex, because
    /// detaching takes the mutex of the group.
    pub(crate) fn add_domain(&mut self, domain: GroupDomain) -> Result<(), GroupDomain> {
        let Ok(slot) = self.domains.slot(GFP_KERNEL_ACCOUNT) else {
            return Err(domain);
        };
        slot.fill(domain);
        self.update_page_sizes();
        Ok(())
    }

    /// Adds a group to the domain at index `nth`.
    ///
    /// # Errors
    ///
    /// As for [`add_domain`](Self::add_domain), and if there is no such domain.
    pub(crate) fn add_group(
        &mut self,
        nth: usize,
        member: AttachedGroup,
    ) -> Result<(), AttachedGroup> {
        let place = self.domains.get_mut(nth);
        let groups = place.map(|place| place.groups.slot(GFP_KERNEL_ACCOUNT));
        let Some(Ok(slot)) = groups else {
            return Err(member);
        };
        slot.fill(member);
        Ok(())
    }

    /// Removes the group at index `place` of the domain at index `nth`, and the domain if it has no
    /// other group. Returns both, or `None` if there is no such group.
    pub(crate) fn remove_group(
        &mut self,
        nth: usize,
        place: usize,
    ) -> Option<(AttachedGroup, Option<GroupDomain>)> {
        let groups = &mut self.domains.get_mut(nth)?.groups;
        let member = groups.remove(place)?;
        if !groups.is_empty() {
            return Some((member, None));
        }
        let domain = self.domains.remove(nth)?;
        self.update_page_sizes();
        Some((member, Some(domain)))
    }

    /// Returns whether all domains enforce cache coherency, so that no device can bypass the
    /// processor caches.
    pub(crate) fn enforces_coherency(&self) -> bool {
        let mut domains = self.domains.iter();
        domains.all(|entry| entry.domain.enforces_coherency())
    }

    fn update_page_sizes(&mut self) {
        self.page_sizes = common_page_sizes(self.domains.iter().map(|entry| &entry.domain));
    }

    /// Returns the page sizes that all domains support and that a mapping may use, as a bitmap.
    pub(crate) fn page_sizes(&self) -> u64 {
        self.page_sizes
    }

    /// Returns the smallest page size.
    pub(crate) fn page_size(&self) -> u64 {
        1 << self.page_sizes.trailing_zeros()
    }
}

/// A cache of the process that has mapped last.
#[derive(Default)]
pub(crate) struct LastOwner(Option<Arc<Owner>>);

impl LastOwner {
    /// Returns the calling process, and remembers it.
    ///
    /// # Errors
    ///
    /// Those of [`Owner::current`].
    pub(crate) fn current(&mut self) -> Result<Arc<Owner>> {
        if let Some(owner) = self.0.as_ref().filter(|owner| owner.describes_current()) {
            return Ok(owner.clone());
        }
        let owner = Owner::current()?;
        self.0 = Some(owner.clone());
        Ok(owner)
    }

    /// Returns the process that mapped last, if any.
    pub(crate) fn get(&self) -> Option<&Owner> {
        self.0.as_deref()
    }
}

impl SpaceTypes for Container {
    type Layout = Layout;
    type MutexData = LastOwner;
    type Pages = DmaPages;
}

impl Container {
    /// Creates a container without groups, with version 2 of the interface if `v2`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(v2: bool) -> Result<Arc<Self>> {
        let layout = Layout {
            domains: SmallVec::new(),
            set: Arc::new(Domains::default(), GFP_KERNEL)?,
            page_sizes: common_page_sizes(iter::empty()),
            emulated: SmallVec::new(),
            dirty_page_tracking: false,
            ranges: Ranges::new(),
        };
        let space = Space::new(layout, LastOwner::default());
        let devices = Arc::pin_init(DeviceList::new(), GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                v2,
                opener: TaskLabel::current(),
                stats: Stats::new(),
                limit: DMA_ENTRY_LIMIT.get(),
                space <- space,
                devices,
            }),
            GFP_KERNEL,
        )
    }
}
