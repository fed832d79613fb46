// SPDX-License-Identifier: GPL-2.0

//! Handling of violations: the LIODN is disabled, and its eventfd is signalled.
//!
//! A device may continue its accesses after its LIODN was stopped. By erratum A-003638 the PAMU
//! raises an interrupt for these accesses, too. The interrupt is then masked to stop a storm, and
//! enabled again after a [`Pause`]. In the meantime accesses of other devices behind the same PAMU
//! are refused as always, but their violations are handled after the pause. A PAMU records one
//! violation at a time, so the violation of a device that doesn't repeat its access may be missed.

use kernel::{
    prelude::*,
    sync::Arc,
    time::{
        msecs_to_jiffies,
        Msecs, //
    },
    workqueue::new_delayed_work, //
};

use kernel_ext::{
    mm::may_warn,
    owned_work::{
        OwnedWork,
        Task, //
    },
};

use crate::{
    pamu::Pamu,
    tables::writer::{
        self,
        Shut, //
    },
    violation::{
        Report,
        Violation, //
    },
};

use super::System;

/// The pauses of a PAMU.
///
/// The length doubles with each pause, until nothing happened during one. A device that only had
/// accesses in flight when it was stopped delays others for a short time. A device that never stops
/// causes fewer than two interrupts a second, and any other device at most a hundred. Enabling a
/// LIODN ends a pause early; no other request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pause {
    /// The length of the next pause.
    next: Msecs,
    /// Whether a violation was handled during the current pause.
    polled: bool,
}

impl Pause {
    /// The shortest and the longest pause, in milliseconds.
    const SHORTEST: Msecs = 10;
    const LONGEST: Msecs = 640;

    /// The initial state of a PAMU.
    pub(super) const FIRST: Self = Self {
        next: Self::SHORTEST,
        polled: false,
    };

    /// Begins a pause. Returns its length in milliseconds.
    fn begin(&mut self) -> Msecs {
        let length = self.next;
        self.next = Self::LONGEST.min(length * 2);
        self.polled = false;
        length
    }

    /// Ends a pause. `pending` tells whether a violation is pending at its end.
    fn end(&mut self, pending: bool) {
        if !pending && !self.polled {
            *self = Self::FIRST;
        }
    }
}

impl System {
    /// Enables the violation interrupts of all PAMUs, and handles the violations of pauses that
    /// this ends.
    ///
    /// Called before a LIODN is enabled. Sleeps.
    pub(crate) fn unmask_interrupts(&self) {
        (0..self.pamus().len()).for_each(|number| self.end_pause(number));
    }

    /// Handles the violations that PAMUs have recorded: those during a pause, which continues, and
    /// those whose interrupt wasn't handled yet.
    ///
    /// Callers may poll as often as they like: a violation of a LIODN that is off already is left to
    /// the interrupt, which begins a pause. Sleeps.
    pub fn poll(&self) {
        let mut pauses = self.pauses.lock();
        for (number, (pamu, pause)) in self.pamus().iter().zip(pauses.iter_mut()).enumerate() {
            let armed = pamu.is_armed();
            if !pamu.is_on() || armed && !self.is_first(pamu) {
                continue;
            }
            if let Some(report) = pamu.take_violation(number) {
                self.stop(&report);
                pamu.acknowledge(armed);
                pause.polled |= !armed;
            }
        }
    }

    /// Discards what the PAMUs have recorded of `liodn`, unless the LIODN is on. These accesses were
    /// made before the LIODN was shut, maybe for another owner. Nothing else would tell them from
    /// later ones, and they would stop the LIODN again.
    ///
    /// Called before a LIODN is enabled. Sleeps.
    pub(crate) fn forget(&self, liodn: u32) {
        let mut pauses = self.pauses.lock();
        if self
            .entry(liodn)
            .is_none_or(|entry| entry.is_open(Shut::Entry))
        {
            return;
        }
        for (number, (pamu, pause)) in self.pamus().iter().zip(pauses.iter_mut()).enumerate() {
            if !pamu.is_on() || pamu.recorded_liodn() != Some(liodn) {
                continue;
            }
            let armed = pamu.is_armed();
            if pamu.take_violation(number).is_some() {
                pamu.acknowledge(armed);
                pause.polled |= !armed;
            }
        }
    }

    /// Returns whether a PAMU has recorded a violation of a LIODN that is still enabled.
    fn is_first(&self, pamu: &Arc<dyn Pamu>) -> bool {
        let entry = pamu.recorded_liodn().and_then(|liodn| self.entry(liodn));
        entry.is_some_and(|entry| entry.is_open(Shut::Entry))
    }

    /// Enables the violation interrupt of a PAMU again.
    fn end_pause(&self, number: usize) {
        let mut pauses = self.pauses.lock();
        let (Some(pamu), Some(pause)) = (self.pamus().get(number), pauses.get_mut(number)) else {
            return;
        };
        if !pamu.is_on() || pamu.is_armed() {
            return;
        }
        // Later violations raise an interrupt; an earlier one is in the registers.
        pamu.unmask_interrupts();
        let report = pamu.take_violation(number);
        pause.end(report.is_some());
        if let Some(report) = report {
            self.stop(&report);
            pamu.acknowledge(true);
        }
    }

    /// Handles the violation that a PAMU has recorded, if any. If this masks the interrupt, returns
    /// the length of the pause in milliseconds.
    fn handle_recorded(&self, number: usize) -> Option<Msecs> {
        let mut pauses = self.pauses.lock();
        let pamu = self.pamus().get(number)?;
        let report = pamu.take_violation(number)?;
        let was_armed = pamu.is_armed();
        let was_on = self.stop(&report);
        pamu.acknowledge(was_armed && was_on);
        if !was_armed || was_on {
            return None;
        }
        pauses.get_mut(number).map(Pause::begin)
    }

    /// Stops the LIODN of a violation, and reports the violation. Returns whether the LIODN was
    /// enabled.
    fn stop(&self, report: &Report) -> bool {
        let violation = Violation::new(report);
        let (was_on, event) = {
            let owners = self.owners.lock();
            let owner = owners.get(violation.liodn as usize);
            match (
                self.entry(violation.liodn),
                owner.and_then(|owner| owner.state()),
            ) {
                (Some(entry), Some(state)) => state.stop(&entry, violation),
                (Some(entry), _) => {
                    let was_on = violation.stops(&entry);
                    if was_on {
                        writer::shut(&entry, Shut::Entry);
                    }
                    (was_on, None)
                }
                (None, _) => (false, None),
            }
        };
        if was_on {
            self.history.lock().add(violation);
            if may_warn() {
                pr_warn!("{report}; the LIODN is disabled until it is revived\n");
            }
        }
        if let Some(event) = event {
            event.signal();
        }
        was_on
    }
}

/// Handles the interrupts of a system's PAMUs. After it is dropped, no pause is pending.
pub struct ViolationHandler {
    system: Arc<System>,
    /// One work item for each PAMU, scheduled while its interrupt is masked.
    ends: KVec<OwnedWork<EndOfPause>>,
}

/// The work that ends a pause of a PAMU.
struct EndOfPause {
    system: Arc<System>,
    pamu: usize,
}

impl Task for EndOfPause {
    fn run(&self) {
        self.system.end_pause(self.pamu);
    }
}

impl ViolationHandler {
    /// Returns the handler of this system. A system has only one.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(system: Arc<System>) -> Result<Self> {
        let mut ends = KVec::with_capacity(system.pamus().len(), GFP_KERNEL)?;
        for pamu in 0..system.pamus().len() {
            let end = EndOfPause {
                system: system.clone(),
                pamu,
            };
            let work = new_delayed_work!("vfio_pamu::end_of_pause");
            ends.push(OwnedWork::new(end, work)?, GFP_KERNEL)?;
        }
        Ok(Self { system, ends })
    }

    /// Returns the system.
    pub fn system(&self) -> &Arc<System> {
        &self.system
    }

    /// Handles an interrupt: the violations that all PAMUs have recorded. Sleeps.
    pub fn interrupt(&self) {
        for (number, end) in self.ends.iter().enumerate() {
            if let Some(pause) = self.system.handle_recorded(number) {
                end.schedule(msecs_to_jiffies(pause));
            }
        }
    }
}

#[kunit_tests(vfio_pamu_violation_handler)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit() {
        let mut pause = Pause::FIRST;
        let lengths = [10, 20, 40, 80, 160, 320, 640, 640, 640];
        assert_eq!(lengths.map(|_| pause.begin()), lengths);
    }

    #[test]
    fn quiet_pause_resets_the_length() {
        for (pending, polled, next) in [
            (false, false, 10),
            (true, false, 40),
            (false, true, 40),
            (true, true, 40),
        ] {
            let mut pause = Pause::FIRST;
            assert_eq!([pause.begin(), pause.begin()], [10, 20]);
            pause.polled = polled;
            pause.end(pending);
            assert_eq!(pause.begin(), next);
        }
    }
}
