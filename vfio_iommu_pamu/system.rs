// SPDX-License-Identifier: GPL-2.0

//! The PAMUs of a machine, the tables that they share, and the owners of LIODNs.
//!
//! The driver of the PAMUs makes a [`System`] and registers it ([`Registration`]). Containers find
//! it by [`SystemRef::get`].
//!
//! Lock order: `Documentation/locking.rst`.

#[allow(unsafe_code)]
mod abi;
mod violation_handler;

use abi::Openable;
pub(crate) use abi::{
    init_lock,
    Pamus, //
};
pub use abi::{
    OpenLiodns,
    Registration,
    SystemRef, //
};
pub use violation_handler::ViolationHandler;

use kernel::{
    new_mutex,
    new_spinlock,
    prelude::*,
    sync::{
        barrier::{
            self,
            Full, //
        },
        Arc,
        Mutex,
        SpinLock, //
    }, //
};

use kernel_ext::{
    eventfd::EventFd,
    iommu_driver::GroupType,
    module_param, //
};

use crate::{
    liodn::{
        Liodn,
        LiodnState, //
    },
    msi::MsiBank,
    paace::{
        Access,
        Aperture,
        Attributes,
        Block,
        Ppaace,
        Windows,
        Words, //
    },
    pamu::Pamu,
    registers::{
        max_liodn,
        max_windows,
        Register, //
    },
    tables::{
        writer::{
            self,
            Entry,
            Shut, //
        },
        Slot,
        Tables, //
    },
    violation::History, //
};

use violation_handler::Pause;

module_param! {
    /// The maximum number of windows of a LIODN.
    static MAX_WINDOWS: u32 = 256;
    name: "max_windows",
    kind: "uint",
    description: "Maximum number of windows of a LIODN (default 256)"
}

/// The settings of a system.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    /// The maximum number of windows of a LIODN. Hardware may allow less.
    pub max_windows: u32,
    /// LIODNs that may access all memory until they are claimed.
    pub open_liodns: OpenLiodns<'a>,
    /// The groups whose devices are behind these PAMUs.
    pub groups: GroupType,
}

impl<'a> Settings<'a> {
    /// Returns settings with the maximum number of windows of the module parameter.
    pub fn from_parameters(open_liodns: OpenLiodns<'a>, groups: GroupType) -> Self {
        Self {
            max_windows: MAX_WINDOWS.get(),
            open_liodns,
            groups,
        }
    }
}

/// The owner of a LIODN.
enum Owner {
    /// There is none. The IOMMU core opens and blocks the LIODN.
    None,
    /// A driver of the kernel, whose device is in no group.
    Kernel,
    /// A container.
    Container(Arc<LiodnState>),
}

impl Owner {
    /// Returns the state that a container shares with the violation handler.
    fn state(&self) -> Option<&Arc<LiodnState>> {
        match self {
            Self::Container(state) => Some(state),
            _ => None,
        }
    }
}

/// All PAMUs of a machine.
#[pin_data]
pub struct System {
    pamus: Pamus,
    banks: KVec<MsiBank>,
    liodns: u32,
    max_windows: u32,
    groups: GroupType,
    /// LIODNs that may access all memory as long as they are neither blocked nor claimed.
    open: Openable,
    /// Their entry.
    all_memory: Words,
    #[pin]
    owners: SpinLock<KVec<Owner>>,
    #[pin]
    history: SpinLock<History>,
    /// The pause of each PAMU.
    #[pin]
    pauses: Mutex<KVec<Pause>>,
}

impl System {
    /// Returns the system of these PAMUs and enables them. All LIODNs are blocked, except for those
    /// that the settings leave open.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no PAMU, or if the maximum number of windows is 0; `EBUSY` if another
    /// system has the tables; `ENOMEM`.
    pub fn new(
        pamus: KVec<Arc<dyn Pamu>>,
        tables: Arc<Tables>,
        banks: KVec<MsiBank>,
        settings: Settings<'_>,
    ) -> Result<Arc<Self>> {
        let known = pamus.iter().map(|pamu| max_liodn(pamu.read(Register::Pc2)));
        let known = known.min().ok_or(EINVAL)?.saturating_add(1);
        let divided = pamus
            .iter()
            .map(|pamu| max_windows(pamu.read(Register::Pc3)));
        let liodns = tables.sizes().liodns.min(known);
        let max_windows = divided.min().ok_or(EINVAL)?.min(settings.max_windows);
        // The number of windows is always a power of two.
        let max_windows = 1 << max_windows.checked_ilog2().ok_or(EINVAL)?;
        let mut owners = KVec::with_capacity(liodns as usize, GFP_KERNEL)?;
        for _ in 0..liodns {
            owners.push(Owner::None, GFP_KERNEL)?;
        }
        let pauses = KVec::from_elem(Pause::FIRST, pamus.len(), GFP_KERNEL)?;
        let open = settings.open_liodns.to_owned()?;
        let all_memory = all_memory()?;
        let pamus = Pamus::new(pamus, tables)?;
        let this = Arc::pin_init(
            pin_init!(Self {
                pamus,
                banks,
                liodns,
                max_windows,
                groups: settings.groups,
                open,
                all_memory,
                owners <- new_spinlock!(owners, "vfio_pamu::owners"),
                history <- new_spinlock!(History::default(), "vfio_pamu::history"),
                pauses <- new_mutex!(pauses, "vfio_pamu::pauses"),
            }),
            GFP_KERNEL,
        )?;
        for entry in this.open.iter().filter_map(|liodn| this.entry(*liodn)) {
            writer::replace(&entry, Shut::Entry, &this.all_memory);
        }
        for number in 0..this.pamus.len() {
            this.pamus.enable(number);
        }
        Ok(this)
    }

    /// Disables the PAMUs. They don't let anything through any more.
    fn disable(&self) {
        let _pauses = self.pauses.lock();
        for pamu in self.pamus.iter() {
            pamu.disable();
        }
    }

    /// Returns the maximum number of windows of a LIODN.
    pub fn max_windows(&self) -> u32 {
        self.max_windows
    }

    /// Returns the number of LIODNs.
    pub(crate) fn liodns(&self) -> u32 {
        self.liodns
    }

    /// Returns the kind of groups whose devices are behind these PAMUs. Transactions of other
    /// devices don't pass them.
    pub(crate) fn groups(&self) -> GroupType {
        self.groups
    }

    /// Returns the MSI banks.
    pub fn banks(&self) -> &[MsiBank] {
        &self.banks
    }

    /// Returns the PAMUs.
    pub(crate) fn pamus(&self) -> &Pamus {
        &self.pamus
    }

    /// Returns the tables.
    pub fn tables(&self) -> &Arc<Tables> {
        self.pamus.tables()
    }

    /// Returns the last violations.
    pub fn history(&self) -> &SpinLock<History> {
        &self.history
    }

    /// Lets `liodn` access all memory again after [`block`](Self::block) or a container, if it was
    /// open at first. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the LIODN doesn't exist, or wasn't open at first; `EBUSY` if a container has it.
    pub(crate) fn open(&self, liodn: u32) -> Result {
        let entry = self.entry(liodn).ok_or(ENODEV)?;
        if !self.open.contains(&liodn) {
            return Err(ENODEV);
        }
        self.forget(liodn);
        let owners = self.owners.lock();
        if owners
            .get(liodn as usize)
            .is_none_or(|owner| owner.state().is_some())
        {
            return Err(EBUSY);
        }
        if !entry.is_open(Shut::Entry) {
            writer::replace(&entry, Shut::Entry, &self.all_memory);
        }
        Ok(())
    }

    /// Lets `liodn` access nothing. If it has an owner, the owner determines what it accesses.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the LIODN doesn't exist.
    pub(crate) fn block(&self, liodn: u32) -> Result {
        let entry = self.entry(liodn).ok_or(ENODEV)?;
        let owners = self.owners.lock();
        if matches!(owners.get(liodn as usize), Some(Owner::None)) {
            writer::shut(&entry, Shut::Entry);
        }
        Ok(())
    }

    /// Reserves `liodn` for a driver of the kernel whose device is in no group. From now on nothing
    /// blocks or claims the LIODN.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the LIODN doesn't exist; `EBUSY` if a container has it.
    pub(crate) fn reserve(&self, liodn: u32) -> Result {
        let mut owners = self.owners.lock();
        let owner = owners.get_mut(liodn as usize).ok_or(ENODEV)?;
        if owner.state().is_some() {
            return Err(EBUSY);
        }
        *owner = Owner::Kernel;
        Ok(())
    }

    /// Returns whether `liodn` exists and isn't reserved for a driver of the kernel.
    pub(crate) fn is_for_groups(&self, liodn: u32) -> bool {
        let owners = self.owners.lock();
        owners
            .get(liodn as usize)
            .is_some_and(|owner| !matches!(owner, Owner::Kernel))
    }

    /// Makes the caller the owner of `liodn`, and blocks it. Violations signal `event`.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the LIODN doesn't exist; `EBUSY` if it has an owner; `ENOMEM`.
    pub fn claim(self: &Arc<Self>, liodn: u32, event: Option<Arc<EventFd>>) -> Result<Liodn> {
        let state = LiodnState::new(event)?;
        let entry = self.entry(liodn).ok_or(ENODEV)?;
        let was_open = {
            let mut owners = self.owners.lock();
            let owner = owners.get_mut(liodn as usize).ok_or(ENODEV)?;
            if !matches!(owner, Owner::None) {
                return Err(EBUSY);
            }
            let was_open = entry.is_open(Shut::Entry);
            writer::shut(&entry, Shut::Entry);
            *owner = Owner::Container(state.clone());
            was_open
        };
        if was_open {
            pr_info!(
                "LIODN {liodn} stays disabled for kernel drivers until this module is reloaded\n"
            );
        }
        Ok(Liodn::new(self.clone(), state, liodn))
    }

    /// Ends the ownership of a LIODN, if `state` is that of its owner. The LIODN is disabled.
    pub(crate) fn release(&self, liodn: u32, state: &Arc<LiodnState>) {
        let own = |owner: &Owner| owner.state().is_some_and(|own| Arc::ptr_eq(own, state));
        let former = {
            let mut owners = self.owners.lock();
            let owner = owners.get_mut(liodn as usize).filter(|owner| own(owner));
            owner.map(|owner| core::mem::replace(owner, Owner::None))
        };
        drop(former);
    }

    /// Returns the entry of `liodn`, if it exists.
    pub fn entry(&self, liodn: u32) -> Option<SharedEntry<'_>> {
        if liodn >= self.liodns {
            return None;
        }
        Some(self.share(self.tables().ppaace(liodn)?))
    }

    /// Returns an entry of the tables as shared with the PAMUs.
    pub(crate) fn share<'a>(&'a self, slot: Slot<'a>) -> SharedEntry<'a> {
        SharedEntry { slot, system: self }
    }
}

/// Returns an entry with which a LIODN may access memory at its physical address, up to 64 GiB. Boot
/// loaders and kernels do the same for devices that kernel drivers use.
fn all_memory() -> Result<Words> {
    let all = Ppaace {
        valid: true,
        aperture: Some(Aperture::DEFAULT),
        windows: Windows::ONE,
        first_spaace: 0,
        block: Block {
            access: Access::All,
            ..Block::default()
        },
        attributes: Attributes::default(),
    };
    Ok(all.encode()?)
}

/// An entry of the tables, which all PAMUs read.
pub struct SharedEntry<'a> {
    slot: Slot<'a>,
    system: &'a System,
}

impl SharedEntry<'_> {
    /// Returns whether transactions may pass the entry, or its first window.
    pub(crate) fn is_open(&self, shut: Shut) -> bool {
        !shut.is(self.slot.load(crate::paace::word::STATE))
    }
}

impl Entry for SharedEntry<'_> {
    fn load(&self, word: usize) -> u32 {
        self.slot.load(word)
    }

    fn store(&self, word: usize, value: u32) {
        self.slot.store(word, value);
    }

    fn publish(&self) {
        // PAMUs access the tables as coherent memory, so a barrier is enough.
        barrier::mb(Full);
    }

    fn drain(&self) {
        self.publish();
        for pamu in self.system.pamus.iter() {
            pamu.drain();
        }
    }
}
