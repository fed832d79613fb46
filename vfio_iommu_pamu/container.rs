// SPDX-License-Identifier: GPL-2.0

//! A container: its LIODNs, its windows and the groups in it.
//!
//! One mutex protects the state. Lock order: `Documentation/locking.rst`.

#[allow(unsafe_code)]
mod abi;
mod attach;

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        lock::mutex::MutexBackend,
        Arc,
        Mutex, //
    }, //
};

use kernel_ext::{
    eventfd::EventFd,
    iommu::Group, //
};

use crate::{
    liodn::Liodn,
    memory::PinnedBlock,
    paace::{
        Aperture,
        Attributes,
        StashId, //
    },
    request::StashTarget,
    system::SystemRef,
    tables::SpaaceRange,
    windows::{
        AddressSpace,
        Window,
        WindowHardware, //
    },
};

use abi::block_of;

pub(crate) use abi::{
    container_of,
    init_lock, //
};

/// The guard of the locked state.
pub(crate) type Guard<'a> = kernel::sync::lock::Guard<'a, ContainerState, MutexBackend>;

/// A container's address space.
#[pin_data]
pub(crate) struct Container {
    /// The PAMUs and their tables.
    pub(crate) system: Arc<SystemRef>,
    #[pin]
    state: Mutex<ContainerState>,
}

/// The data that the container's mutex protects.
pub(crate) struct ContainerState {
    // Fields are dropped in order: devices before the memory, which they reach until they are
    // dropped.
    /// The devices that the mappings are for.
    pub(crate) devices: Devices,
    /// The mappings.
    pub(crate) space: AddressSpace<PinnedBlock>,
    /// The groups in the container, each with the LIODNs of its devices.
    pub(crate) groups: KVec<AttachedGroup>,
    /// The cache that device writes are stashed in.
    pub(crate) stash: Option<Stash>,
    /// The eventfd that is signalled on each violation.
    pub(crate) event: Option<Arc<EventFd>>,
}

/// A group in the container.
pub(crate) struct AttachedGroup {
    /// The group.
    pub(crate) group: ARef<Group>,
    /// The LIODNs of its devices.
    pub(crate) liodns: KVec<u32>,
}

/// The cache that device writes are stashed in.
#[derive(Clone, Copy)]
pub(crate) struct Stash {
    /// The target as userspace set it.
    pub(crate) target: StashTarget,
    /// The identifier that the hardware uses.
    pub(crate) id: StashId,
}

impl Container {
    /// Returns a container without groups.
    ///
    /// # Errors
    ///
    /// `ENODEV` if there is no PAMU, `ENOMEM`.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let system = Arc::new(SystemRef::get().ok_or(ENODEV)?, GFP_KERNEL_ACCOUNT)?;
        let banks = system.banks().len() as u32;
        let state = ContainerState {
            devices: Devices {
                liodns: KVec::new(),
                system: system.clone(),
            },
            space: AddressSpace::new(system.max_windows(), banks),
            groups: KVec::new(),
            stash: None,
            event: None,
        };
        Arc::pin_init(
            pin_init!(Self {
                system,
                state <- new_mutex!(state, "vfio_pamu_container::state"),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Locks the state.
    pub(crate) fn lock(&self) -> Guard<'_> {
        self.state.lock()
    }
}

impl ContainerState {
    /// Returns the attributes that all table entries have in common.
    pub(crate) fn attributes(&self) -> Attributes {
        Attributes {
            stash: self.stash.map(|stash| stash.id),
            ..Attributes::default()
        }
    }
}

/// The LIODNs of a container. All of them have the same windows.
///
/// # Invariants
///
/// The container's [`AddressSpace`] holds the memory that a window was set to. It gives the memory
/// away after [`WindowHardware::clear`] of that window has returned, and frees it when there is no
/// LIODN any more.
pub(crate) struct Devices {
    liodns: KVec<Liodn>,
    // Dropped last: the LIODNs use the PAMUs, whose driver this keeps loaded.
    system: Arc<SystemRef>,
}

impl Devices {
    /// Returns the LIODN with this number.
    pub(crate) fn get(&self, number: u32) -> Option<&Liodn> {
        self.liodns.iter().find(|liodn| liodn.number() == number)
    }

    /// Iterates over all LIODNs.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Liodn> {
        self.liodns.iter()
    }

    /// Reserves the table entries for `count` windows, for each LIODN.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if the table has too few free entries; `ENOMEM`.
    pub(crate) fn prepare(&self, count: u32) -> Result<KVec<SpaaceRange>> {
        let mut prepared = KVec::with_capacity(self.liodns.len(), GFP_KERNEL)?;
        for liodn in self.liodns.iter() {
            prepared.push(liodn.prepare(count)?, GFP_KERNEL)?;
        }
        Ok(prepared)
    }

    /// Gives all LIODNs an aperture with all windows clear, using entries from
    /// [`prepare`](Self::prepare).
    pub(crate) fn configure(
        &mut self,
        aperture: Aperture,
        prepared: KVec<SpaaceRange>,
        attributes: Attributes,
    ) {
        for (liodn, spaaces) in self.liodns.iter_mut().zip(prepared) {
            let result = liodn.configure(aperture, spaaces, attributes);
            report(liodn.number(), result);
        }
    }

    /// Removes the aperture of all LIODNs.
    pub(crate) fn unconfigure(&mut self) {
        self.liodns.iter_mut().for_each(Liodn::unconfigure);
    }

    /// Sets the cache that device writes are stashed in.
    pub(crate) fn set_stash(&mut self, id: StashId) {
        for liodn in self.liodns.iter_mut() {
            let result = liodn.set_stash(Some(id));
            report(liodn.number(), result);
        }
    }

    /// Adds a LIODN. It reaches what is mapped from the moment that this returns, and nothing
    /// before. Each of its violations signals `event`, including the first.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the hardware has no such LIODN; `EBUSY` if it is claimed already; `ENOSPC` if
    /// the tables have no room for its windows; `ENOMEM`. After an error the LIODN reaches no
    /// memory.
    pub(crate) fn add(
        &mut self,
        number: u32,
        space: &AddressSpace<PinnedBlock>,
        attributes: Attributes,
        event: Option<Arc<EventFd>>,
    ) -> Result {
        let mut liodn = self.system.claim(number, event)?;
        if let Some(layout) = space.layout() {
            let spaaces = liodn.prepare(layout.count())?;
            liodn.configure(layout.aperture(), spaaces, attributes)?;
            for (window, content) in space.iter() {
                liodn.set_window(window, &block_of(self, content))?;
            }
            if space.in_use() {
                liodn.enable()?;
            }
        }
        self.liodns.push(liodn, GFP_KERNEL_ACCOUNT)?;
        Ok(())
    }

    /// Removes a LIODN. It reaches no memory any more.
    pub(crate) fn remove(&mut self, number: u32) {
        self.liodns.retain(|liodn| liodn.number() != number);
    }
}

/// Logs that a table update failed after validation.
pub(crate) fn report(number: u32, result: Result) {
    if let Err(e) = result {
        pr_err!(
            "LIODN {}: table update failed after validation: {:?}\n",
            number,
            e
        );
    }
}

impl WindowHardware<PinnedBlock> for Devices {
    fn set(&mut self, window: u32, content: &Window<PinnedBlock>) {
        let block = block_of(self, content);
        for liodn in self.liodns.iter_mut() {
            let result = liodn.set_window(window, &block);
            report(liodn.number(), result);
        }
    }

    fn clear(&mut self, window: u32) {
        for liodn in self.liodns.iter_mut() {
            let result = liodn.clear_window(window);
            report(liodn.number(), result);
        }
    }

    fn enable(&mut self) {
        for liodn in self.liodns.iter_mut() {
            let result = liodn.enable();
            report(liodn.number(), result);
        }
    }

    fn disable(&mut self) {
        for liodn in self.liodns.iter_mut() {
            let result = liodn.disable();
            report(liodn.number(), result);
        }
    }
}
