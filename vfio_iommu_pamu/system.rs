// SPDX-License-Identifier: GPL-2.0

//! The PAMUs of a machine, the tables that they share, and who owns which LIODN.
//!
//! # Locking
//!
//! `pauses`, a mutex, is held while violations are handled. Inside it `owners` is taken, then a LIODN's
//! `gate`, then what is within a PAMU. These are spinlocks; under them no memory is allocated, and no
//! last reference is dropped.

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

/// What a system is to be like.
#[derive(Clone, Copy)]
pub(crate) struct Settings<'a> {
    /// How many windows a LIODN may have; hardware may allow less.
    pub(crate) max_windows: u32,
    /// LIODNs that may reach all memory until they are claimed.
    pub(crate) open: &'a [u32],
    /// The groups whose devices are behind these PAMUs.
    pub(crate) groups: GroupKind,
}

/// All PAMUs of a machine.
#[pin_data]
pub(crate) struct System {
    // Before the tables, which the PAMUs read until they are turned off.
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
    /// For each PAMU.
    #[pin]
    pauses: Mutex<KVec<Pause>>,
}

impl System {
    /// The system of these PAMUs, which are turned on. LIODNs may do nothing yet, but for those that
    /// the settings leave open.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no PAMU, or LIODNs may have no window; `ENOMEM`.
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
        // Only powers of two can be set.
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

    /// Turns the PAMUs off, which then let nothing through.
    pub(crate) fn disable(&self) {
        let _pauses = self.pauses.lock();
        for pamu in self.pamus() {
            pamu.disable();
        }
    }

    /// The PAMUs of this machine, if it has any.
    pub(crate) fn get() -> Option<Arc<Self>> {
        SYSTEM.lock().clone()
    }

    /// The largest number of windows that a LIODN can have.
    pub(crate) fn max_windows(&self) -> u32 {
        self.max_windows
    }

    /// The number of LIODNs.
    pub(crate) fn liodns(&self) -> u32 {
        self.liodns
    }

    /// The groups whose devices are behind these PAMUs. What other devices do passes none of them.
    pub(crate) fn groups(&self) -> GroupKind {
        self.groups
    }

    /// The banks of message signalled interrupts.
    pub(crate) fn banks(&self) -> &[Bank] {
        &self.banks
    }

    /// The PAMUs.
    pub(crate) fn pamus(&self) -> &[Arc<dyn Pamu>] {
        &self.pamus.0
    }

    /// The tables.
    pub(crate) fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// The last violations.
    pub(crate) fn history(&self) -> &SpinLock<History> {
        &self.history
    }

    /// Makes the caller the owner of `liodn`, which from now on may do nothing. Violations signal `event`.
    ///
    /// # Errors
    ///
    /// `ENODEV` if there is no such LIODN, `EBUSY` if it has an owner, `ENOMEM`.
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

    /// Ends an ownership. The LIODN is off.
    pub(crate) fn disown(&self, liodn: u32) {
        let owner = {
            let mut owners = self.owners.lock();
            owners.get_mut(liodn as usize).and_then(Option::take)
        };
        drop(owner);
    }

    /// The entry of `liodn`, if there is one.
    pub(crate) fn entry(&self, liodn: u32) -> Option<Shared<'_>> {
        if liodn >= self.liodns {
            return None;
        }
        Some(self.share(self.tables.primary(liodn)?))
    }

    /// An entry of the tables, as the PAMUs share it with us.
    pub(crate) fn share<'a>(&'a self, slot: Slot<'a>) -> Shared<'a> {
        Shared { slot, system: self }
    }
}

/// Lets a LIODN reach all memory at its physical address, up to 64 GiB: what boot loaders and kernels
/// do for devices that the kernel drives.
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

/// PAMUs that are on until this is dropped.
struct Pamus(KVec<Arc<dyn Pamu>>);

impl Drop for Pamus {
    fn drop(&mut self) {
        for pamu in &self.0 {
            pamu.disable();
        }
    }
}

/// An entry of the tables that all PAMUs read.
pub(crate) struct Shared<'a> {
    slot: Slot<'a>,
    system: &'a System,
}

impl Shared<'_> {
    /// Whether something may go through the entry, or through its first window.
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
        // For the PAMUs this is memory, which the caches of all processors and theirs keep coherent.
        barrier::mb(Full);
    }

    fn drain(&self) {
        self.publish();
        for pamu in self.system.pamus() {
            pamu.drain();
        }
    }
}
