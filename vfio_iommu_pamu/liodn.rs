// SPDX-License-Identifier: GPL-2.0

//! A logical I/O device number and its owner: what the devices with that number may reach.

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

/// Whether a LIODN is on, and why it isn't.
struct Gate {
    /// Its owner wants it on.
    wanted: bool,
    /// The violation that stopped it, until the owner revives it.
    stopped: Option<Violation>,
    /// Whom to tell of violations.
    event: Option<Arc<EventFd>>,
}

/// What the owner of a LIODN shares with who handles violations.
#[pin_data]
pub(crate) struct Line {
    /// Also guards the primary entry.
    #[pin]
    gate: SpinLock<Gate>,
}

impl Line {
    /// The line of a LIODN that is off. Violations signal `event`.
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

    /// Turns the LIODN off because of a violation. Returns whether it was on, and whom to tell then.
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

/// The windows that a LIODN has.
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

    /// The primary entry with `block` as the first window.
    fn primary(&self, valid: bool, block: Block) -> Result<Words> {
        let (aperture, block) = match self.windows() {
            // The only window has no size of its own: the aperture ends where the block does.
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

/// The ownership of a LIODN; dropping it leaves the LIODN off.
///
/// The methods sleep only where they say so. Errors change nothing.
pub(crate) struct Liodn {
    system: Arc<System>,
    line: Arc<Line>,
    number: u32,
    setup: Option<Setup>,
}

impl Liodn {
    /// Wraps a claim that was made.
    pub(crate) fn new(system: Arc<System>, line: Arc<Line>, number: u32) -> Self {
        Self {
            system,
            line,
            number,
            setup: None,
        }
    }

    /// The number.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    fn entry(&self) -> Result<Shared<'_>> {
        self.system.entry(self.number).ok_or(ENODEV)
    }

    /// Takes what `windows` windows need. Sleeps.
    ///
    /// # Errors
    ///
    /// `EINVAL` if that isn't a power of two or more than a LIODN can have, `ENOSPC` if so many
    /// entries aren't left.
    pub(crate) fn prepare(&self, windows: u32) -> Result<Secondaries> {
        if windows > self.system.max_windows() {
            return Err(EINVAL);
        }
        self.system.tables().secondaries(Windows::new(windows)?)
    }

    /// Divides `aperture` into the windows that were prepared, none of which leads anywhere yet. The
    /// LIODN is off, and all its windows of before are gone. Sleeps.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the windows were smaller than a page, or the attributes don't exist.
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
        // The entries of before are erased now that the primary entry leads to them no more.
        self.setup = Some(setup);
        Ok(())
    }

    /// Takes the aperture away: the LIODN is off until it is configured again. Sleeps.
    pub(crate) fn unconfigure(&mut self) {
        if self.rewrite(&Primary::BLOCKED).is_ok() {
            self.setup = None;
        }
    }

    /// Turns the LIODN off and gives it another primary entry.
    fn rewrite(&self, words: &Words) -> Result {
        let entry = self.entry()?;
        let mut gate = self.line.gate.lock();
        gate.wanted = false;
        writer::replace(&entry, Shut::Entry, words);
        Ok(())
    }

    /// Whether window `index` leads anywhere.
    fn is_set(&self, setup: &Setup, index: u32) -> Result<bool> {
        if index == 0 {
            let access = self.entry()?.load(word::STATE);
            return Ok(writer::has_access(access));
        }
        let slot = setup.secondaries.slot(index).ok_or(EINVAL)?;
        Ok(self.system.share(slot).is_open(Shut::Entry))
    }

    /// Lets window `index` lead to `window`, also while the LIODN is on.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the LIODN isn't configured; `EBUSY` if the window leads somewhere already; `EINVAL`
    /// if there is no such window, or if the memory isn't a power of two of at least 4 KiB, is larger
    /// than the window, doesn't begin at a multiple of its size, or can't be accessed at all.
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

    /// Gives window 0 another block.
    fn set_first(&self, setup: &Setup, block: Block) -> Result {
        let entry = self.entry()?;
        let _gate = self.line.gate.lock();
        let words = setup.primary(entry.is_open(Shut::Entry), block)?;
        writer::replace(&entry, Shut::FirstWindow, &words);
        Ok(())
    }

    /// Lets window `index` lead nowhere, also while the LIODN is on. After that no transaction
    /// reaches the memory that it led to.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the LIODN isn't configured, `EINVAL` if there is no such window.
    pub(crate) fn clear_window(&mut self, index: u32) -> Result {
        let setup = self.setup.as_ref().ok_or(ENODEV)?;
        if index == 0 {
            return self.set_first(setup, Block::default());
        }
        let slot = setup.secondaries.slot(index).ok_or(EINVAL)?;
        writer::shut(&self.system.share(slot), Shut::Entry);
        Ok(())
    }

    /// Turns the LIODN on. One that a violation stopped stays off until it is revived.
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

    /// Turns the LIODN off. After that no transaction of it reaches anything.
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

    /// Forgets the violation that stopped the LIODN, which then is on again if its owner wants that.
    /// Returns whether it was stopped.
    ///
    /// # Errors
    ///
    /// None that happens to a claimed LIODN.
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

    /// The violation that stopped the LIODN, if one did. What PAMUs have noted and nobody has handled
    /// doesn't count: see [`System::poll`].
    pub(crate) fn violation(&self) -> Option<Violation> {
        self.line.gate.lock().stopped
    }

    /// Sets whom to tell of violations from now on.
    pub(crate) fn set_violation_event(&self, event: Option<Arc<EventFd>>) {
        let old = {
            let mut gate = self.line.gate.lock();
            core::mem::replace(&mut gate.event, event)
        };
        drop(old);
    }

    /// Lets the device's writes go to a cache, or to none, also while the LIODN is on.
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
