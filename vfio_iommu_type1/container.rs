// SPDX-License-Identifier: GPL-2.0

//! The state of one container.
//!
//! # Locking
//!
//! From the outside in; what is taken inside another stands below it:
//!
//! 1. the mutex of the list of containers;
//! 2. the mutex of the list of devices, which is held while drivers are told to give pages back: they do
//!    so by [`unpin`](Container::unpin), which locks addresses, so nobody takes it who has locked some;
//! 3. addresses, by the range lock of [`Space`]. Who has locked some may wait for memory, the memory of
//!    processes, user memory, and the IOMMU core's mutex of a group;
//! 4. the mutex of the space, innermost, held to look things up and to enter them.

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
    iommu::{
        Attachment,
        Domain,
        Domains,
        Group, //
    },
    iommu_driver::UserDevices,
    mm::Owner,
    task::TaskLabel, //
};

use crate::{
    pages::DmaPages,
    refusal::{
        Granted,
        Refusal, //
    },
    space::{
        Kind,
        Space, //
    },
    spent::Spent,
    DMA_ENTRY_LIMIT, //
};

/// A container's address space.
#[pin_data]
pub(crate) struct Container {
    /// Whether it has the rules of `VFIO_TYPE1v2_IOMMU` rather than those of `VFIO_TYPE1_IOMMU`.
    pub(crate) v2: bool,
    /// Who gave it its first group.
    pub(crate) opener: TaskLabel,
    /// What it takes to serve it.
    pub(crate) spent: Costs,
    /// How many mappings there may be at a time.
    pub(crate) limit: u32,
    /// What is mapped, for whom.
    #[pin]
    pub(crate) space: Space<Self>,
    /// The open devices whose drivers pin pages.
    #[pin]
    pub(crate) devices: UserDevices,
}

/// How much time requests take, by their kind.
pub(crate) struct Costs {
    /// Maps, also those that only give an address.
    pub(crate) map: Spent,
    /// Unmaps, also those that only invalidate an address.
    pub(crate) unmap: Spent,
    /// Groups that come and go.
    pub(crate) groups: Spent,
}

/// A group that an IOMMU translates for.
pub(crate) struct Member {
    /// The group, and what keeps it in its domain.
    pub(crate) attachment: Attachment,
    /// Whether the drivers of its devices pin the pages that these write. Never taken back.
    pub(crate) pins: AtomicFlag,
}

/// A domain and the groups in it.
pub(crate) struct GroupDomain {
    /// The groups, each of which keeps the domain.
    pub(crate) groups: KVec<Member>,
    /// The domain.
    pub(crate) domain: Arc<Domain>,
}

impl Member {
    /// A group that was attached just now.
    pub(crate) fn new(attachment: Attachment) -> Self {
        Self {
            attachment,
            pins: AtomicFlag::new(false),
        }
    }
}

impl GroupDomain {
    /// Which of the groups is `group`.
    pub(crate) fn position(&self, group: &Group) -> Option<usize> {
        self.groups
            .iter()
            .position(|member| member.attachment.group() == group)
    }
}

/// Who uses an address space, and by which rules.
pub(crate) struct Layout {
    /// The domains of groups with an IOMMU.
    pub(crate) domains: KVec<GroupDomain>,
    /// The same domains, for mappings to share.
    set: Arc<Domains>,
    /// The smallest page that can be mapped in all of these.
    page_size: u64,
    /// The groups of emulated devices, which have no IOMMU.
    pub(crate) emulated: KVec<ARef<Group>>,
    /// Whether track is kept of dirty pages. Then all mappings have room to note them.
    pub(crate) tracks_dirty: bool,
    /// The addresses that may be mapped.
    pub(crate) ranges: Ranges,
}

impl Layout {
    /// Whether an IOMMU translates for the container.
    pub(crate) fn has_iommu(&self) -> bool {
        !self.domains.is_empty()
    }

    /// Checks that there is a group. The core gives requests a reference to the address space, so one that
    /// waited may come after the last group has left, when there is no address space for other programs.
    ///
    /// # Errors
    ///
    /// `EINVAL`, as for a container without groups.
    pub(crate) fn check_used(&self) -> Granted {
        if self.has_iommu() || !self.emulated.is_empty() {
            return Ok(());
        }
        Err(Refusal::new(EINVAL, c"the last group has left"))
    }

    /// Whether `group` is in the container.
    pub(crate) fn has_group(&self, group: &Group) -> bool {
        self.emulated.iter().any(|other| **other == *group)
            || self
                .domains
                .iter()
                .any(|domain| domain.position(group).is_some())
    }

    /// The domains, for mappings to share.
    pub(crate) fn set(&self) -> &Arc<Domains> {
        &self.set
    }

    /// Replaces the domains that mappings share.
    pub(crate) fn replace_set(&mut self, set: Arc<Domains>) {
        self.page_size = smallest_page(&set);
        self.set = set;
    }

    /// The smallest page that can be mapped.
    pub(crate) fn page_size(&self) -> u64 {
        self.page_size
    }
}

/// The smallest page that can be mapped in all of `domains`.
fn smallest_page(domains: &Domains) -> u64 {
    1 << domains.page_sizes().trailing_zeros()
}

/// The process that mapped last, which probably will again.
#[derive(Default)]
pub(crate) struct LastOwner(Option<Arc<Owner>>);

impl LastOwner {
    /// The calling process.
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

    /// The process, if one has mapped.
    pub(crate) fn get(&self) -> Option<&Owner> {
        self.0.as_deref()
    }
}

impl Kind for Container {
    type Layout = Layout;
    type State = LastOwner;
    type Pages = DmaPages;
}

impl Container {
    /// A container without groups, of the second version of the interface if `v2`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(v2: bool) -> Result<Arc<Self>> {
        let set = Arc::new(Domains::default(), GFP_KERNEL)?;
        let layout = Layout {
            domains: KVec::new(),
            page_size: smallest_page(&set),
            set,
            emulated: KVec::new(),
            tracks_dirty: false,
            ranges: Ranges::new(),
        };
        let space = Space::new(layout, LastOwner::default())?;
        Arc::pin_init(
            pin_init!(Self {
                v2,
                opener: TaskLabel::current(),
                spent: Costs {
                    map: Spent::new(),
                    unmap: Spent::new(),
                    groups: Spent::new(),
                },
                limit: DMA_ENTRY_LIMIT.get(),
                space <- space,
                devices <- UserDevices::new(),
            }),
            GFP_KERNEL,
        )
    }
}
