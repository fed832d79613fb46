// SPDX-License-Identifier: GPL-2.0

//! A claimed logical I/O device number (LIODN): what the devices with that number may access.

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
    abi::Window,
    paace::{
        with_stash,
        word,
        Aperture,
        Attributes,
        Block,
        Primary,
        Secondary,
        StashId,
        Windows,
        Words, //
    },
    system::{
        Shared,
        System, //
    },
    tables::{
        writer::{
            self,
            Entry,
            Shut, //
        },
        Secondaries, //
    },
    violation::Violation, //
};

/// The enable state of a LIODN.
struct Gate {
    /// Whether the owner wants the LIODN enabled.
    wanted: bool,
    /// The violation that stopped the LIODN, until the owner revives it.
    stopped: Option<Violation>,
    /// The eventfd to signal on violations.
    event: Option<Arc<EventFd>>,
}

/// The state that the owner of a LIODN shares with the violation handler.
#[pin_data]
pub(crate) struct Line {
    /// Also protects the primary entry.
    #[pin]
    gate: SpinLock<Gate>,
}

impl Line {
    /// Returns the line of a disabled LIODN. Violations signal `event`.
    pub(crate) fn new(event: Option<Arc<EventFd>>) -> Result<Arc<Self>> {
        let gate = Gate {
            wanted: false,
            stopped: None,
            event,
        };
        Arc::pin_init(
            pin_init!(Self { gate <- new_spinlock!(gate, "vfio_pamu::gate") }),
            GFP_KERNEL,
        )
    }

    /// Disables the LIODN because of a violation. Returns whether it was enabled, and if so the
    /// eventfd to signal.
    pub(crate) fn stop(
        &self,
        entry: &Shared<'_>,
        violation: Violation,
    ) -> (bool, Option<Arc<EventFd>>) {
        let mut gate = self.gate.lock();
        if !violation.stops(entry) {
            return (false, None);
        }
        writer::shut(entry, Shut::Entry);
        gate.stopped = Some(violation);
        (true, gate.event.clone())
    }
}

/// The configured windows of a LIODN.
struct Setup {
    aperture: Aperture,
    window_size: u64,
    attributes: Attributes,
    secondaries: Secondaries,
}

impl Setup {
    fn windows(&self) -> Windows {
        self.secondaries.windows()
    }

    /// Returns the primary entry with `block` as window 0.
    fn primary(&self, valid: bool, block: Block) -> Result<Words> {
        let (aperture, block) = match self.windows() {
            // An undivided aperture has no separate window size: shorten it to the size of the
            // block.
            Windows::ONE if block.size != 0 => (
                Aperture::of_size(self.aperture.start(), block.size)?,
                Block { size: 0, ..block },
            ),
            _ => (self.aperture, block),
        };
        let entry = Primary {
            valid,
            aperture: Some(aperture),
            windows: self.windows(),
            first_secondary: self.secondaries.first(),
            block,
            attributes: self.attributes,
        };
        Ok(entry.encode()?)
    }
}

/// An owned LIODN. Dropping it disables the LIODN.
///
/// The methods sleep only where their documentation says so. A method that fails changes nothing.
pub(crate) struct Liodn {
    system: Arc<System>,
    line: Arc<Line>,
    number: u32,
    setup: Option<Setup>,
}

impl Liodn {
    /// Wraps a LIODN that was claimed.
    pub(crate) fn new(system: Arc<System>, line: Arc<Line>, number: u32) -> Self {
        Self {
            system,
            line,
            number,
            setup: None,
        }
    }

    /// Returns the number.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    fn entry(&self) -> Result<Shared<'_>> {
        self.system.entry(self.number).ok_or(ENODEV)
    }

    /// Allocates the entries for `windows` windows. Sleeps.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the number isn't a power of two or exceeds the maximum of a LIODN; `ENOSPC` if
    /// there are too few free entries.
    pub(crate) fn prepare(&self, windows: u32) -> Result<Secondaries> {
        if windows > self.system.max_windows() {
            return Err(EINVAL);
        }
        self.system.tables().secondaries(Windows::new(windows)?)
    }

    /// Divides `aperture` into the windows that were prepared. All of them are clear. The LIODN is
    /// disabled, and its previous windows are gone. Sleeps.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the windows would be smaller than a page, or if the attributes are invalid.
    pub(crate) fn configure(
        &mut self,
        aperture: Aperture,
        secondaries: Secondaries,
        attributes: Attributes,
    ) -> Result {
        let setup = Setup {
            aperture,
            window_size: aperture.window_size(secondaries.windows())?,
            attributes,
            secondaries,
        };
        let words = setup.primary(false, Block::default())?;
        self.rewrite(&words)?;
        // The previous entries are erased now that the primary entry doesn't refer to them any
        // more.
        self.setup = Some(setup);
        Ok(())
    }

    /// Removes the aperture. The LIODN is disabled until it is configured again. Sleeps.
    pub(crate) fn unconfigure(&mut self) {
        if self.rewrite(&Primary::BLOCKED).is_ok() {
            self.setup = None;
        }
    }

    /// Disables the LIODN and replaces its primary entry.
    fn rewrite(&self, words: &Words) -> Result {
        let entry = self.entry()?;
        let mut gate = self.line.gate.lock();
        gate.wanted = false;
        writer::replace(&entry, Shut::Entry, words);
        Ok(())
    }

    /// Returns whether window `index` is set.
    fn is_set(&self, setup: &Setup, index: u32) -> Result<bool> {
        if index == 0 {
            let access = self.entry()?.load(word::STATE);
            return Ok(writer::has_access(access));
        }
        let slot = setup.secondaries.slot(index).ok_or(EINVAL)?;
        Ok(self.system.share(slot).is_open(Shut::Entry))
    }

    /// Sets window `index` to `window`. The LIODN may be enabled.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the LIODN isn't configured; `EBUSY` if the window is set already; `EINVAL` if
    /// the window doesn't exist, or if the memory isn't a power of two of at least 4 KiB, is larger
    /// than the window, isn't aligned to its size, or permits no access.
    pub(crate) fn set_window(&mut self, index: u32, window: &Window) -> Result {
        let setup = self.setup.as_ref().ok_or(ENODEV)?;
        let block = window.block();
        if !writer::has_access(crate::paace::with_access(0, block.access)) || block.size == 0 {
            return Err(EINVAL);
        }
        block.check(setup.window_size)?;
        if self.is_set(setup, index)? {
            return Err(EBUSY);
        }
        if index == 0 {
            return self.set_first(setup, block);
        }
        let entry = Secondary {
            valid: true,
            liodn: self.number as u16,
            block,
            attributes: setup.attributes,
        };
        let words = entry.encode(setup.window_size)?;
        let slot = setup.secondaries.slot(index).ok_or(EINVAL)?;
        writer::replace(&self.system.share(slot), Shut::Entry, &words);
        Ok(())
    }

    /// Replaces the block of window 0.
    fn set_first(&self, setup: &Setup, block: Block) -> Result {
        let entry = self.entry()?;
        let _gate = self.line.gate.lock();
        let words = setup.primary(entry.is_open(Shut::Entry), block)?;
        writer::replace(&entry, Shut::FirstWindow, &words);
        Ok(())
    }

    /// Clears window `index`. The LIODN may be enabled. When this returns, no transaction reaches
    /// the memory that the window led to.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the LIODN isn't configured; `EINVAL` if the window doesn't exist.
    pub(crate) fn clear_window(&mut self, index: u32) -> Result {
        let setup = self.setup.as_ref().ok_or(ENODEV)?;
        if index == 0 {
            return self.set_first(setup, Block::default());
        }
        let slot = setup.secondaries.slot(index).ok_or(EINVAL)?;
        writer::shut(&self.system.share(slot), Shut::Entry);
        Ok(())
    }

    /// Enables the LIODN. A LIODN that a violation stopped stays disabled until it is revived.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the LIODN isn't configured.
    pub(crate) fn enable(&mut self) -> Result {
        if self.setup.is_none() {
            return Err(ENODEV);
        }
        let entry = self.entry()?;
        self.system.arm();
        let mut gate = self.line.gate.lock();
        gate.wanted = true;
        if gate.stopped.is_none() {
            writer::open(&entry);
        }
        Ok(())
    }

    /// Disables the LIODN. When this returns, none of its transactions reaches memory.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the LIODN isn't configured.
    pub(crate) fn disable(&mut self) -> Result {
        if self.setup.is_none() {
            return Err(ENODEV);
        }
        let entry = self.entry()?;
        let mut gate = self.line.gate.lock();
        gate.wanted = false;
        writer::shut(&entry, Shut::Entry);
        Ok(())
    }

    /// Clears the violation that stopped the LIODN, and enables it again if the owner wants it
    /// enabled. Returns whether it was stopped.
    ///
    /// # Errors
    ///
    /// None for a claimed LIODN.
    pub(crate) fn revive(&self) -> Result<bool> {
        let entry = self.entry()?;
        self.system.poll();
        if self.violation().is_none() {
            return Ok(false);
        }
        self.system.arm();
        let mut gate = self.line.gate.lock();
        gate.stopped = None;
        if gate.wanted {
            writer::open(&entry);
        }
        Ok(true)
    }

    /// Returns the violation that stopped the LIODN, if any. Violations that a PAMU has recorded
    /// but that are not handled yet don't count; see [`System::poll`].
    pub(crate) fn violation(&self) -> Option<Violation> {
        self.line.gate.lock().stopped
    }

    /// Sets the eventfd to signal on later violations.
    pub(crate) fn set_violation_event(&self, event: Option<Arc<EventFd>>) {
        let old = {
            let mut gate = self.line.gate.lock();
            core::mem::replace(&mut gate.event, event)
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
        let setup = self.setup.as_mut().ok_or(ENODEV)?;
        setup.attributes.stash = stash;
        let patch = |entry: &Shared<'_>| {
            let value = with_stash(entry.load(word::TRANSLATION), stash);
            writer::patch(entry, word::TRANSLATION, value);
        };
        let _gate = self.line.gate.lock();
        patch(&entry);
        for slot in setup.secondaries.slots() {
            patch(&self.system.share(slot));
        }
        Ok(())
    }
}

impl Drop for Liodn {
    fn drop(&mut self) {
        self.unconfigure();
        self.set_violation_event(None);
        self.system.disown(self.number);
    }
}
