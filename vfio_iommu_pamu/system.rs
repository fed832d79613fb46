// SPDX-License-Identifier: GPL-2.0

//! The PAMUs of a machine, the tables that they share, and the owners of LIODNs.
//!
//! # Locking
//!
//! The mutex `pauses` is held while violations are handled. The locks `owners`, then a LIODN's
//! `gate`, then the locks of a PAMU nest inside it, in this order. These are spinlocks. While one
//! of them is held, no memory is allocated and no last reference is dropped.

mod hearing;

pub(crate) use hearing::Listener;

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
    iommu_driver::GroupKind, //
};

use crate::{
    abi::SYSTEM,
    liodn::{
        Line,
        Liodn, //
    },
    msi::Bank,
    paace::{
        Access,
        Aperture,
        Attributes,
        Block,
        Primary,
        Windows, //
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

use hearing::Pause;

/// The settings of a system.
#[derive(Clone, Copy)]
pub(crate) struct Settings<'a> {
    /// The maximum number of windows of a LIODN. Hardware may allow less.
    pub(crate) max_windows: u32,
    /// LIODNs that may access all memory until they are claimed.
    pub(crate) open: &'a [u32],
    /// The groups whose devices are behind these PAMUs.
    pub(crate) groups: GroupKind,
}

/// All PAMUs of a machine.
#[pin_data]
pub(crate) struct System {
    // Fields are dropped in order: PAMUs before the tables, which they read until they are
    // disabled.
    pamus: Pamus,
    tables: Arc<Tables>,
    banks: KVec<Bank>,
    liodns: u32,
    max_windows: u32,
    groups: GroupKind,
    /// The owner of each LIODN.
    #[pin]
    owners: SpinLock<KVec<Option<Arc<Line>>>>,
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
    /// `EINVAL` if there is no PAMU, or if the maximum number of windows is 0; `ENOMEM`.
    pub(crate) fn new(
        pamus: KVec<Arc<dyn Pamu>>,
        tables: Arc<Tables>,
        banks: KVec<Bank>,
        settings: Settings<'_>,
    ) -> Result<Arc<Self>> {
        let known = pamus.iter().map(|pamu| max_liodn(pamu.read(Register::Pc2)));
        let known = known.min().ok_or(EINVAL)?.saturating_add(1);
        let divided = pamus
            .iter()
            .map(|pamu| max_windows(pamu.read(Register::Pc3)));
        let liodns = tables.limits().liodns.min(known);
        let max_windows = divided.min().ok_or(EINVAL)?.min(settings.max_windows);
        // The number of windows is always a power of two.
        let max_windows = 1 << max_windows.checked_ilog2().ok_or(EINVAL)?;
        let mut owners = KVec::with_capacity(liodns as usize, GFP_KERNEL)?;
        for _ in 0..liodns {
            owners.push(None, GFP_KERNEL)?;
        }
        let pauses = KVec::from_elem(Pause::FIRST, pamus.len(), GFP_KERNEL)?;
        let this = Arc::pin_init(
            pin_init!(Self {
                pamus: Pamus(pamus),
                tables,
                banks,
                liodns,
                max_windows,
                groups: settings.groups,
                owners <- new_spinlock!(owners, "vfio_pamu::owners"),
                history <- new_spinlock!(History::default(), "vfio_pamu::history"),
                pauses <- new_mutex!(pauses, "vfio_pamu::pauses"),
            }),
            GFP_KERNEL,
        )?;
        for entry in settings.open.iter().filter_map(|liodn| this.entry(*liodn)) {
            open_all(&entry)?;
        }
        for pamu in this.pamus() {
            pamu.enable(&this.tables);
        }
        Ok(this)
    }

    /// Disables the PAMUs. They don't let anything through any more.
    pub(crate) fn disable(&self) {
        let _pauses = self.pauses.lock();
        for pamu in self.pamus() {
            pamu.disable();
        }
    }

    /// Returns the PAMUs of this machine, if it has any.
    pub(crate) fn get() -> Option<Arc<Self>> {
        SYSTEM.lock().clone()
    }

    /// Returns the maximum number of windows of a LIODN.
    pub(crate) fn max_windows(&self) -> u32 {
        self.max_windows
    }

    /// Returns the number of LIODNs.
    pub(crate) fn liodns(&self) -> u32 {
        self.liodns
    }

    /// Returns the kind of groups whose devices are behind these PAMUs. Transactions of other
    /// devices don't pass them.
    pub(crate) fn groups(&self) -> GroupKind {
        self.groups
    }

    /// Returns the MSI banks.
    pub(crate) fn banks(&self) -> &[Bank] {
        &self.banks
    }

    /// Returns the PAMUs.
    pub(crate) fn pamus(&self) -> &[Arc<dyn Pamu>] {
        &self.pamus.0
    }

    /// Returns the tables.
    pub(crate) fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// Returns the last violations.
    pub(crate) fn history(&self) -> &SpinLock<History> {
        &self.history
    }

    /// Makes the caller the owner of `liodn`, and blocks it. Violations signal `event`.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the LIODN doesn't exist; `EBUSY` if it has an owner; `ENOMEM`.
    pub(crate) fn claim(
        self: &Arc<Self>,
        liodn: u32,
        event: Option<Arc<EventFd>>,
    ) -> Result<Liodn> {
        let line = Line::new(event)?;
        let entry = self.entry(liodn).ok_or(ENODEV)?;
        let was_open = {
            let mut owners = self.owners.lock();
            let owner = owners.get_mut(liodn as usize).ok_or(ENODEV)?;
            if owner.is_some() {
                return Err(EBUSY);
            }
            let was_open = entry.is_open(Shut::Entry);
            writer::shut(&entry, Shut::Entry);
            *owner = Some(line.clone());
            was_open
        };
        if was_open {
            pr_info!("LIODN {liodn} is taken from the kernel's drivers until this module is loaded anew\n");
        }
        Ok(Liodn::new(self.clone(), line, liodn))
    }

    /// Ends the ownership of a LIODN. The LIODN is disabled.
    pub(crate) fn disown(&self, liodn: u32) {
        let owner = {
            let mut owners = self.owners.lock();
            owners.get_mut(liodn as usize).and_then(Option::take)
        };
        drop(owner);
    }

    /// Returns the entry of `liodn`, if it exists.
    pub(crate) fn entry(&self, liodn: u32) -> Option<Shared<'_>> {
        if liodn >= self.liodns {
            return None;
        }
        Some(self.share(self.tables.primary(liodn)?))
    }

    /// Returns an entry of the tables as shared with the PAMUs.
    pub(crate) fn share<'a>(&'a self, slot: Slot<'a>) -> Shared<'a> {
        Shared { slot, system: self }
    }
}

/// Lets a LIODN access memory at its physical address, up to 64 GiB. Boot loaders and kernels do
/// the same for devices that kernel drivers use.
fn open_all(entry: &Shared<'_>) -> Result {
    let all = Primary {
        valid: true,
        aperture: Some(Aperture::DEFAULT),
        windows: Windows::ONE,
        first_secondary: 0,
        block: Block {
            access: Access::All,
            ..Block::default()
        },
        attributes: Attributes::default(),
    };
    writer::replace(entry, Shut::Entry, &all.encode()?);
    Ok(())
}

/// Enabled PAMUs. Dropping this disables them.
struct Pamus(KVec<Arc<dyn Pamu>>);

impl Drop for Pamus {
    fn drop(&mut self) {
        for pamu in &self.0 {
            pamu.disable();
        }
    }
}

/// An entry of the tables, which all PAMUs read.
pub(crate) struct Shared<'a> {
    slot: Slot<'a>,
    system: &'a System,
}

impl Shared<'_> {
    /// Returns whether transactions may pass the entry, or its first window.
    pub(crate) fn is_open(&self, shut: Shut) -> bool {
        !shut.is(self.slot.load(crate::paace::word::STATE))
    }
}

impl Entry for Shared<'_> {
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
        for pamu in self.system.pamus() {
            pamu.drain();
        }
    }
}
