// SPDX-License-Identifier: GPL-2.0

//! The state of one container.
//!
//! # Locking
//!
//! All of it is behind one mutex. What may take long is done without: memory is pinned before it is
//! taken, and then looked at again. Under it memory may be given back, for which the lock of a
//! process's memory is taken; so `mmap()` of our file doesn't take the mutex. User memory is never
//! copied under it. The locks of the hardware are taken inside, and nothing of the hardware's takes
//! the mutex.

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
    abi::window_of,
    liodn::Liodn,
    memory::Memory,
    paace::{
        Aperture,
        Attributes,
        StashId, //
    },
    request::StashTarget,
    system::System,
    tables::Secondaries,
    windows::{
        Mirror,
        Space,
        Window, //
    },
};

/// The state's lock, held.
pub(crate) type Guard<'a> = kernel::sync::lock::Guard<'a, State, MutexBackend>;

/// A container's address space.
#[pin_data]
pub(crate) struct Container {
    /// The hardware.
    pub(crate) system: Arc<System>,
    #[pin]
    state: Mutex<State>,
}

/// What the container's mutex protects.
pub(crate) struct State {
    // Before the memory, which the devices reach until they are gone: fields are dropped in order.
    /// The devices that memory is mapped for.
    pub(crate) devices: Devices,
    /// What is mapped.
    pub(crate) space: Space<Memory>,
    /// The groups in the container, each with the LIODNs of its devices.
    pub(crate) groups: KVec<Membership>,
    /// The cache that devices write to.
    pub(crate) stash: Option<Stash>,
    /// What is signalled with each violation.
    pub(crate) event: Option<Arc<EventFd>>,
}

/// A group in the container.
pub(crate) struct Membership {
    /// The group.
    pub(crate) group: ARef<Group>,
    /// The LIODNs of its devices.
    pub(crate) liodns: KVec<u32>,
}

/// The cache that devices write to, as the program and as the hardware knows it.
#[derive(Clone, Copy)]
pub(crate) struct Stash {
    /// As the program knows it.
    pub(crate) target: StashTarget,
    /// As the hardware does.
    pub(crate) id: StashId,
}

impl Container {
    /// A container without groups.
    ///
    /// # Errors
    ///
    /// `ENODEV` if there is no PAMU, `ENOMEM`.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let system = System::get().ok_or(ENODEV)?;
        let banks = system.banks().len() as u32;
        let state = State {
            devices: Devices {
                system: system.clone(),
                liodns: KVec::new(),
            },
            space: Space::new(system.max_windows(), banks),
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

impl State {
    /// What all entries of the tables have in common.
    pub(crate) fn attributes(&self) -> Attributes {
        Attributes {
            stash: self.stash.map(|stash| stash.id),
            ..Attributes::default()
        }
    }
}

/// The LIODNs of a container, which all see the same windows.
///
/// # Invariants
///
/// The memory that a window was set to is in the container's [`Space`], which gives it back after
/// [`Mirror::clear`] of that window has returned, or when there is no LIODN any more.
pub(crate) struct Devices {
    system: Arc<System>,
    liodns: KVec<Liodn>,
}

impl Devices {
    /// The LIODN with this number.
    pub(crate) fn get(&self, number: u32) -> Option<&Liodn> {
        self.liodns.iter().find(|liodn| liodn.number() == number)
    }

    /// All LIODNs.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Liodn> {
        self.liodns.iter()
    }

    /// Reserves the entries that `count` windows take, for each LIODN.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if the table has too few, `ENOMEM`.
    pub(crate) fn prepare(&self, count: u32) -> Result<KVec<Secondaries>> {
        let mut prepared = KVec::with_capacity(self.liodns.len(), GFP_KERNEL)?;
        for liodn in self.liodns.iter() {
            prepared.push(liodn.prepare(count)?, GFP_KERNEL)?;
        }
        Ok(prepared)
    }

    /// Gives all LIODNs an aperture whose windows are all off, with entries that were prepared.
    pub(crate) fn configure(
        &mut self,
        aperture: Aperture,
        prepared: KVec<Secondaries>,
        attributes: Attributes,
    ) {
        for (liodn, secondaries) in self.liodns.iter_mut().zip(prepared) {
            let result = liodn.configure(aperture, secondaries, attributes);
            report(liodn.number(), result);
        }
    }

    /// Takes the aperture away from all LIODNs.
    pub(crate) fn unconfigure(&mut self) {
        self.liodns.iter_mut().for_each(Liodn::unconfigure);
    }

    /// Sets the cache that devices write to.
    pub(crate) fn set_stash(&mut self, id: StashId) {
        for liodn in self.liodns.iter_mut() {
            let result = liodn.set_stash(Some(id));
            report(liodn.number(), result);
        }
    }

    /// Adds a LIODN, which sees what is mapped from the moment that this returns, and nothing before.
    /// `event` is signalled with each of its violations, the first one included.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the hardware has no such LIODN, `EBUSY` if somebody else has it, `ENOSPC` if the
    /// tables have no room for its windows, `ENOMEM`. Then it reaches nothing.
    pub(crate) fn add(
        &mut self,
        number: u32,
        space: &Space<Memory>,
        attributes: Attributes,
        event: Option<Arc<EventFd>>,
    ) -> Result {
        self.liodns.reserve(1, GFP_KERNEL_ACCOUNT)?;
        let mut liodn = self.system.claim(number, event)?;
        if let Some(layout) = space.layout() {
            let secondaries = liodn.prepare(layout.count())?;
            liodn.configure(layout.aperture(), secondaries, attributes)?;
            for (window, content) in space.iter() {
                let block = window_of(self, content, self.system.banks())?;
                liodn.set_window(window, &block)?;
            }
            if space.in_use() {
                liodn.enable()?;
            }
        }
        self.liodns.push(liodn, GFP_KERNEL_ACCOUNT)?;
        Ok(())
    }

    /// Takes a LIODN out: it reaches nothing any more.
    pub(crate) fn remove(&mut self, number: u32) {
        self.liodns.retain(|liodn| liodn.number() != number);
    }
}

/// Says that the hardware refused what was checked before.
fn report(number: u32, result: Result) {
    if let Err(e) = result {
        pr_err!(
            "LIODN {}: the tables refuse what was checked: {:?}\n",
            number,
            e
        );
    }
}

impl Mirror<Memory> for Devices {
    fn set(&mut self, window: u32, content: &Window<Memory>) {
        let block = match window_of(self, content, self.system.banks()) {
            Ok(block) => block,
            Err(e) => return pr_err!("window {}: no such bank: {:?}\n", window, e),
        };
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
