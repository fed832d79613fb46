// SPDX-License-Identifier: GPL-2.0

//! The state of one container, and who may change it when.
//!
//! # Locking
//!
//! [`State`] is behind one mutex, which is held to look things up and to enter them, never to pin,
//! to map or to unmap. Who does that marks what it works on, and lets go of the mutex:
//!
//! - A [`Claim`] on one map takes the pages out of it. Whoever meets such a map waits until it has
//!   them again, or is gone. Claims on different maps go on at the same time.
//! - [`Exclusive`] is for groups that come and go. It waits for all claims to end, and no new ones
//!   are made meanwhile; so it may change the domains and every map.
//!
//! The mutex of the list of devices is taken before that of the state. It is held while drivers are
//! told to give pages back, which they do by taking claims; so nobody takes it who has one.
//!
//! The mutex of the list of containers is taken before all others.
//!
//! Waiting for one of these is waiting for `changed`. A claim waits for nothing but memory and the
//! lock of a process's memory; an exclusive holder also for mutexes of groups. User memory isn't
//! touched under the mutex.

mod claim;

use kernel::{
    new_condvar, new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        lock::mutex::MutexBackend,
        Arc,
        CondVar,
        Mutex, //
    },
};

use iommu_group::ranges::{
    Range,
    Ranges, //
};

use kernel_ext::{
    iommu::{
        Attachment,
        Domain,
        Domains,
        Group, //
    },
    iommu_driver::UserDevice,
    mm::Owner,
    task::TaskLabel, //
};

use crate::{
    maps::Maps,
    spent::Spent,
    DMA_ENTRY_LIMIT, //
};

pub(crate) use claim::{
    Claim,
    Exclusive, //
};

/// The state's lock, held.
pub(crate) type Guard<'a> = kernel::sync::lock::Guard<'a, State, MutexBackend>;

/// A container's address space.
#[pin_data]
pub(crate) struct Container {
    /// Whether it has the rules of `VFIO_TYPE1v2_IOMMU` rather than those of `VFIO_TYPE1_IOMMU`.
    pub(crate) v2: bool,
    /// Who gave it its first group.
    pub(crate) opener: TaskLabel,
    /// What it takes to serve it.
    pub(crate) spent: Costs,
    #[pin]
    state: Mutex<State>,
    #[pin]
    changed: CondVar,
    /// The open devices whose drivers pin pages. Taken before `state`, and held while they are told
    /// to give pages back.
    #[pin]
    pub(crate) devices: Mutex<KVec<UserDevice>>,
}

/// How much time requests take, by their kind.
pub(crate) struct Costs {
    /// Maps, also those that only give an address.
    pub(crate) map: Spent,
    /// Unmaps, also those that only withdraw an address.
    pub(crate) unmap: Spent,
    /// Groups that come and go.
    pub(crate) groups: Spent,
}

/// A group that an IOMMU translates for.
pub(crate) struct Member {
    /// The group, and what keeps it in its domain.
    pub(crate) attachment: Attachment,
    /// Whether the drivers of its devices pin the pages that these write.
    pub(crate) pins: bool,
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
            pins: false,
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

/// What the container's mutex protects.
pub(crate) struct State {
    /// What is mapped. Goes before the domains.
    pub(crate) maps: Maps,
    /// The domains of groups with an IOMMU.
    pub(crate) domains: KVec<GroupDomain>,
    /// The same domains, for maps to share.
    pub(crate) set: Arc<Domains>,
    /// The groups without an IOMMU.
    pub(crate) emulated: KVec<ARef<Group>>,
    /// How many devices there are in the list of those which can be told to give pages back.
    pub(crate) devices: usize,
    /// Whether track is kept of dirty pages.
    pub(crate) tracks_dirty: bool,
    /// The addresses that may be mapped.
    pub(crate) ranges: Ranges,
    /// How many maps there may be at a time.
    pub(crate) limit: u32,
    /// How many maps may still be made.
    pub(crate) available: u32,
    /// How many maps have their address withdrawn.
    pub(crate) vaddr_invalid: usize,
    /// The process that mapped last, which probably will again.
    owner: Option<Arc<Owner>>,
    /// How many maps are claimed, or about to be.
    pub(crate) busy: usize,
    /// Whether somebody works exclusively, or wants to.
    exclusive: bool,
    /// How many wait for a change.
    waiters: usize,
    /// Where somebody waits for others to end, and nobody begins meanwhile.
    gate: Option<Range>,
}

impl State {
    /// Whether an IOMMU translates for the container.
    pub(crate) fn has_iommu(&self) -> bool {
        !self.domains.is_empty()
    }

    /// Whether `group` is in the container.
    pub(crate) fn has_group(&self, group: &Group) -> bool {
        self.emulated.iter().any(|other| **other == *group)
            || self
                .domains
                .iter()
                .any(|domain| domain.position(group).is_some())
    }

    /// The smallest page that can be mapped.
    pub(crate) fn page_size(&self) -> u64 {
        1 << self.set.page_sizes().trailing_zeros()
    }

    /// The calling process.
    ///
    /// # Errors
    ///
    /// Those of [`Owner::current`].
    pub(crate) fn current_owner(&mut self) -> Result<Arc<Owner>> {
        if let Some(owner) = self
            .owner
            .as_ref()
            .filter(|owner| owner.describes_current())
        {
            return Ok(owner.clone());
        }
        let owner = Owner::current()?;
        self.owner = Some(owner.clone());
        Ok(owner)
    }

    /// The process that mapped last.
    pub(crate) fn last_owner(&self) -> Option<&Owner> {
        self.owner.as_deref()
    }

    /// Whether somebody works on a map in `range`.
    pub(crate) fn is_busy_in(&self, range: Range) -> bool {
        let mut busy = false;
        if self.busy != 0 {
            self.maps.for_each_in(range, |_, map| {
                busy = map.is_busy();
                !busy
            });
        }
        busy
    }
}

impl Container {
    /// A container without groups.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(v2: bool) -> Result<Arc<Self>> {
        let limit = DMA_ENTRY_LIMIT.get();
        let state = State {
            maps: Maps::new(),
            domains: KVec::new(),
            set: Arc::new(Domains::default(), GFP_KERNEL)?,
            emulated: KVec::new(),
            devices: 0,
            tracks_dirty: false,
            ranges: Ranges::new(),
            limit,
            available: limit,
            vaddr_invalid: 0,
            owner: None,
            busy: 0,
            exclusive: false,
            waiters: 0,
            gate: None,
        };
        Arc::pin_init(
            pin_init!(Self {
                v2,
                opener: TaskLabel::current(),
                spent: Costs {
                    map: Spent::new(),
                    unmap: Spent::new(),
                    groups: Spent::new(),
                },
                state <- new_mutex!(state),
                changed <- new_condvar!(),
                devices <- new_mutex!(KVec::new()),
            }),
            GFP_KERNEL,
        )
    }

    /// Locks the state.
    pub(crate) fn lock(&self) -> Guard<'_> {
        self.state.lock()
    }

    /// Lets go of the lock until something has changed.
    pub(crate) fn wait(&self, state: &mut Guard<'_>) {
        state.waiters += 1;
        self.changed.wait(state);
        state.waiters -= 1;
    }

    /// Lets go of the lock, and wakes who waits for what has changed.
    fn changed(&self, state: Guard<'_>) {
        let waiters = state.waiters;
        drop(state);
        if waiters != 0 {
            self.changed.notify_all();
        }
    }

    /// Waits until nobody works exclusively. The state may have changed altogether.
    pub(crate) fn wait_settled(&self, state: &mut Guard<'_>) {
        while state.exclusive {
            self.wait(state);
        }
    }

    /// Waits until nobody works on a map in `range`, nor exclusively.
    ///
    /// The first one to wait keeps others from beginning there, who else might go on in turns for
    /// ever; its own turn comes when those end that have begun.
    pub(crate) fn wait_idle(&self, state: &mut Guard<'_>, range: Range) {
        let mut holds_gate = false;
        while state.exclusive
            || state.is_busy_in(range)
            || !holds_gate && state.gate.is_some_and(|gate| gate.overlaps(range))
        {
            if state.gate.is_none() {
                state.gate = Some(range);
                holds_gate = true;
            }
            self.wait(state);
        }
        if holds_gate {
            state.gate = None;
            self.changed.notify_all();
        }
    }
}
