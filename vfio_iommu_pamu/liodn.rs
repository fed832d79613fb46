// SPDX-License-Identifier: GPL-2.0

//! A claimed logical I/O device number (LIODN): what the devices with that number may access.

#[allow(unsafe_code)]
mod abi;

pub use abi::MappedBlock;

use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    }, //
};

use kernel_ext::eventfd::EventFd;

use crate::{
    paace::{
        with_stash,
        word,
        Aperture,
        Attributes,
        Block,
        Ppaace,
        Spaace,
        StashId,
        Windows,
        Words, //
    },
    system::{
        SharedEntry,
        System, //
    },
    tables::{
        writer::{
            self,
            Entry,
            Shut, //
        },
        SpaaceRange, //
    },
    violation::Violation, //
};

/// The enable state of a LIODN.
struct EnableState {
    /// Whether the owner wants the LIODN enabled.
    wanted: bool,
    /// The violation that stopped the LIODN, until the owner revives it.
    stopped: Option<Violation>,
    /// The eventfd to signal on violations.
    event: Option<Arc<EventFd>>,
}

/// The state that the owner of a LIODN shares with the violation handler.
#[pin_data]
pub(crate) struct LiodnState {
    /// Also protects the primary entry.
    #[pin]
    enable: SpinLock<EnableState>,
}

impl LiodnState {
    /// Returns the state of a disabled LIODN. Violations signal `event`.
    pub(crate) fn new(event: Option<Arc<EventFd>>) -> Result<Arc<Self>> {
        let enable = EnableState {
            wanted: false,
            stopped: None,
            event,
        };
        Arc::pin_init(
            pin_init!(Self { enable <- new_spinlock!(enable, "vfio_pamu::enable") }),
            GFP_KERNEL,
        )
    }

    /// Disables the LIODN because of a violation. Returns whether it was enabled, and if so the
    /// eventfd to signal.
    pub(crate) fn stop(
        &self,
        entry: &SharedEntry<'_>,
        violation: Violation,
    ) -> (bool, Option<Arc<EventFd>>) {
        let mut enable = self.enable.lock();
        if !violation.stops(entry) {
            return (false, None);
        }
        writer::shut(entry, Shut::Entry);
        enable.stopped = Some(violation);
        (true, enable.event.clone())
    }
}

/// The configured windows of a LIODN.
struct Configuration {
    aperture: Aperture,
    window_size: u64,
    attributes: Attributes,
    spaaces: SpaaceRange,
}

impl Configuration {
    fn windows(&self) -> Windows {
        self.spaaces.windows()
    }

    /// Returns the primary entry with `block` as window 0.
    fn ppaace(&self, valid: bool, block: Block) -> Result<Words> {
        let (aperture, block) = match self.windows() {
            // An undivided aperture has no separate window size: shorten it to the size of the
            // block.
            Windows::ONE if block.size != 0 => (
                Aperture::of_size(self.aperture.start(), block.size)?,
                Block { size: 0, ..block },
            ),
            _ => (self.aperture, block),
        };
        let entry = Ppaace {
            valid,
            aperture: Some(aperture),
            windows: self.windows(),
            first_spaace: self.spaaces.first(),
            block,
            attributes: self.attributes,
        };
        Ok(entry.encode()?)
    }
}

/// An owned LIODN. Dropping it disables the LIODN.
///
/// The methods sleep only where their documentation says so. A method that fails changes nothing.
pub struct Liodn {
    system: Arc<System>,
    state: Arc<LiodnState>,
    number: u32,
    configuration: Option<Configuration>,
}

impl Liodn {
    /// Wraps a LIODN that was claimed.
    pub(crate) fn new(system: Arc<System>, state: Arc<LiodnState>, number: u32) -> Self {
        Self {
            system,
            state,
            number,
            configuration: None,
        }
    }

    /// Returns the number.
    pub fn number(&self) -> u32 {
        self.number
    }

    fn entry(&self) -> Result<SharedEntry<'_>> {
        self.system.entry(self.number).ok_or(ENODEV)
    }

    /// Allocates the entries for `windows` windows. Sleeps.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the number isn't a power of two or exceeds the maximum of a LIODN; `ENOSPC` if
    /// there are too few free entries.
    pub fn prepare(&self, windows: u32) -> Result<SpaaceRange> {
        if windows > self.system.max_windows() {
            return Err(EINVAL);
        }
        self.system
            .tables()
            .allocate_spaaces(Windows::new(windows)?)
    }

    /// Divides `aperture` into the windows that were prepared. All of them are clear. The LIODN is
    /// disabled, and its previous windows are gone. Sleeps.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the windows would be smaller than a page, or if the attributes are invalid.
    pub fn configure(
        &mut self,
        aperture: Aperture,
        spaaces: SpaaceRange,
        attributes: Attributes,
    ) -> Result {
        let configuration = Configuration {
            aperture,
            window_size: aperture.window_size(spaaces.windows())?,
            attributes,
            spaaces,
        };
        let words = configuration.ppaace(false, Block::default())?;
        self.rewrite(&words)?;
        // The previous entries are erased now that the primary entry doesn't refer to them any
        // more.
        self.configuration = Some(configuration);
        Ok(())
    }

    /// Removes the aperture. The LIODN is disabled until it is configured again. Sleeps.
    pub fn unconfigure(&mut self) {
        if self.rewrite(&Ppaace::BLOCKED).is_ok() {
            self.configuration = None;
        }
    }

    /// Disables the LIODN and replaces its primary entry.
    fn rewrite(&self, words: &Words) -> Result {
        let entry = self.entry()?;
        let mut enable = self.state.enable.lock();
        enable.wanted = false;
        writer::replace(&entry, Shut::Entry, words);
        Ok(())
    }

    /// Returns whether window `index` is set.
    fn is_set(&self, configuration: &Configuration, index: u32) -> Result<bool> {
        if index == 0 {
            let access = self.entry()?.load(word::STATE);
            return Ok(writer::has_access(access));
        }
        let slot = configuration.spaaces.slot(index).ok_or(EINVAL)?;
        Ok(self.system.share(slot).is_open(Shut::Entry))
    }

    /// Sets window `index` to `block`. The LIODN may be enabled.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the LIODN isn't configured, or if its system doesn't have the bank that the
    /// block is the doorbell of; `EBUSY` if the window is set already; `EINVAL` if the window
    /// doesn't exist, or if the block isn't a power of two of at least 4 KiB, is larger than the
    /// window, isn't aligned to its size, or permits no access.
    pub fn set_window(&mut self, index: u32, block: &MappedBlock) -> Result {
        let configuration = self.configuration.as_ref().ok_or(ENODEV)?;
        let block = block.block(&self.system)?;
        if !writer::has_access(crate::paace::with_access(0, block.access)) || block.size == 0 {
            return Err(EINVAL);
        }
        block.check(configuration.window_size)?;
        if self.is_set(configuration, index)? {
            return Err(EBUSY);
        }
        if index == 0 {
            return self.set_first(configuration, block);
        }
        let entry = Spaace {
            valid: true,
            liodn: self.number as u16,
            block,
            attributes: configuration.attributes,
        };
        let words = entry.encode(configuration.window_size)?;
        let slot = configuration.spaaces.slot(index).ok_or(EINVAL)?;
        writer::replace(&self.system.share(slot), Shut::Entry, &words);
        Ok(())
    }

    /// Replaces the block of window 0.
    fn set_first(&self, configuration: &Configuration, block: Block) -> Result {
        let entry = self.entry()?;
        let _enable = self.state.enable.lock();
        let words = configuration.ppaace(entry.is_open(Shut::Entry), block)?;
        writer::replace(&entry, Shut::FirstWindow, &words);
        Ok(())
    }

    /// Clears window `index`. The LIODN may be enabled. When this returns, no transaction reaches
    /// the memory that the window led to.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the LIODN isn't configured; `EINVAL` if the window doesn't exist.
    pub fn clear_window(&mut self, index: u32) -> Result {
        let configuration = self.configuration.as_ref().ok_or(ENODEV)?;
        if index == 0 {
            return self.set_first(configuration, Block::default());
        }
        let slot = configuration.spaaces.slot(index).ok_or(EINVAL)?;
        writer::shut(&self.system.share(slot), Shut::Entry);
        Ok(())
    }

    /// Enables the LIODN. A LIODN that a violation stopped stays disabled until it is revived.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the LIODN isn't configured.
    pub fn enable(&mut self) -> Result {
        if self.configuration.is_none() {
            return Err(ENODEV);
        }
        let entry = self.entry()?;
        self.system.unmask_interrupts();
        self.system.forget(self.number);
        let mut enable = self.state.enable.lock();
        enable.wanted = true;
        if enable.stopped.is_none() {
            writer::open(&entry);
        }
        Ok(())
    }

    /// Disables the LIODN. When this returns, none of its transactions reaches memory.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the LIODN isn't configured.
    pub fn disable(&mut self) -> Result {
        if self.configuration.is_none() {
            return Err(ENODEV);
        }
        let entry = self.entry()?;
        let mut enable = self.state.enable.lock();
        enable.wanted = false;
        writer::shut(&entry, Shut::Entry);
        Ok(())
    }

    /// Clears the violation that stopped the LIODN, and enables it again if the owner wants it
    /// enabled. Returns whether it was stopped.
    ///
    /// # Errors
    ///
    /// None for a claimed LIODN.
    pub fn revive(&self) -> Result<bool> {
        let entry = self.entry()?;
        self.system.poll();
        if self.violation().is_none() {
            return Ok(false);
        }
        self.system.unmask_interrupts();
        self.system.forget(self.number);
        let mut enable = self.state.enable.lock();
        enable.stopped = None;
        if enable.wanted {
            writer::open(&entry);
        }
        Ok(true)
    }

    /// Returns the violation that stopped the LIODN, if any. Violations that a PAMU has recorded
    /// but that are not handled yet don't count; see [`System::poll`].
    pub fn violation(&self) -> Option<Violation> {
        self.state.enable.lock().stopped
    }

    /// Sets the eventfd to signal on later violations.
    pub(crate) fn set_violation_event(&self, event: Option<Arc<EventFd>>) {
        let old = {
            let mut enable = self.state.enable.lock();
            core::mem::replace(&mut enable.event, event)
        };
        drop(old);
    }

    /// Sets or removes the cache that device writes are stashed in. The LIODN may be enabled.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the LIODN isn't configured.
    pub(crate) fn set_stash(&mut self, stash: Option<StashId>) -> Result {
        let entry = self.system.entry(self.number).ok_or(ENODEV)?;
        let configuration = self.configuration.as_mut().ok_or(ENODEV)?;
        configuration.attributes.stash = stash;
        let patch = |entry: &SharedEntry<'_>| {
            let value = with_stash(entry.load(word::TRANSLATION), stash);
            writer::patch(entry, word::TRANSLATION, value);
        };
        let _enable = self.state.enable.lock();
        patch(&entry);
        for slot in configuration.spaaces.slots() {
            patch(&self.system.share(slot));
        }
        Ok(())
    }
}

impl Drop for Liodn {
    fn drop(&mut self) {
        self.unconfigure();
        self.set_violation_event(None);
        self.system.release(self.number, &self.state);
    }
}
