// SPDX-License-Identifier: GPL-2.0

//! What becomes of violations: the LIODN is stopped, and whoever wants to know is told.
//!
//! A device may go on after its LIODN was stopped, and by erratum A-003638 the PAMU interrupts for that,
//! too. Its interrupt is disabled then, or there was no end to that; after a [`Pause`] it is enabled again.
//! What others do behind the same PAMU is refused meanwhile as ever, and heard of after the pause.
//! A PAMU notes one violation at a time, so that of a device which does not go on may be missed.

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
/// The length doubles with each pause, until there was one in which nothing happened: a device that only
/// had something on its way when it was stopped costs others little time, one that never rests fewer
/// than two interrupts a second, and any other one not more than a hundred. A pause ends early when a
/// LIODN is turned on, and for no other request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pause {
    /// How long the next one is going to be.
    next: Msecs,
    /// Whether there was a violation in this one that was handled before its end.
    polled: bool,
}

impl Pause {
    /// In milliseconds.
    const SHORTEST: Msecs = 10;
    const LONGEST: Msecs = 640;

    /// That of a PAMU which had no reason for one.
    pub(super) const FIRST: Self = Self {
        next: Self::SHORTEST,
        polled: false,
    };

    /// Begins one, of so many milliseconds.
    fn begin(&mut self) -> Msecs {
        let length = self.next;
        self.next = Self::LONGEST.min(length * 2);
        self.polled = false;
        length
    }

    /// Ends one, at whose end a violation is pending or not.
    fn end(&mut self, pending: bool) {
        if !pending && !self.polled {
            *self = Self::FIRST;
        }
    }
}

impl System {
    /// Has the violations of all PAMUs interrupt, and handles those that didn't.
    ///
    /// For those who are about to turn a LIODN on. Sleeps.
    pub(crate) fn arm(&self) {
        (0..self.pamus().len()).for_each(|number| self.end_pause(number));
    }

    /// Handles the violations that PAMUs have noted during a pause, which goes on.
    ///
    /// For those who want to know now, as often as they like. Sleeps.
    pub(crate) fn poll(&self) {
        let mut pauses = self.pauses.lock();
        for (number, (pamu, pause)) in self.pamus().iter().zip(pauses.iter_mut()).enumerate() {
            if !pamu.is_on() || pamu.is_armed() {
                continue;
            }
            if let Some(report) = pamu.take_violation(number) {
                self.stop(&report);
                pamu.acknowledge(false);
                pause.polled = true;
            }
        }
    }

    /// Has the violations of a PAMU interrupt again.
    fn end_pause(&self, number: usize) {
        let mut pauses = self.pauses.lock();
        let (Some(pamu), Some(pause)) = (self.pamus().get(number), pauses.get_mut(number)) else {
            return;
        };
        if !pamu.is_on() || pamu.is_armed() {
            return;
        }
        // What comes from now on interrupts; what came before is in the registers.
        pamu.arm();
        let report = pamu.take_violation(number);
        pause.end(report.is_some());
        if let Some(report) = report {
            self.stop(&report);
            pamu.acknowledge(true);
        }
    }

    /// Handles the violation that a PAMU has noted, if it has. Returns how many milliseconds it may
    /// not interrupt from now on, if so.
    fn hear(&self, number: usize) -> Option<Msecs> {
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

    /// Turns off the LIODN of a violation, and tells of it. Returns whether it was on.
    fn stop(&self, report: &Report) -> bool {
        let violation = Violation::new(report);
        let (was_on, event) = {
            let owners = self.owners.lock();
            match (
                self.entry(violation.liodn),
                owners.get(violation.liodn as usize),
            ) {
                (Some(entry), Some(Some(line))) => line.stop(&entry, violation),
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
                pr_warn!("{report}; the LIODN is off until its owner revives it\n");
            }
        }
        if let Some(event) = event {
            event.signal();
        }
        was_on
    }
}

/// Who handles the interrupts of a system's PAMUs. When it is dropped, no pause is pending any more.
pub(crate) struct Listener {
    system: Arc<System>,
    /// One of each PAMU, scheduled while it may not interrupt.
    ends: KVec<OwnedWork<EndOfPause>>,
}

/// What there is to do when a PAMU may interrupt again.
struct EndOfPause {
    system: Arc<System>,
    pamu: usize,
}

impl Task for EndOfPause {
    fn run(&self) {
        self.system.end_pause(self.pamu);
    }
}

impl Listener {
    /// The one of this system, which has no other.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(system: Arc<System>) -> Result<Self> {
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

    /// The system.
    pub(crate) fn system(&self) -> &Arc<System> {
        &self.system
    }

    /// Handles an interrupt: what all PAMUs have noted. Sleeps.
    pub(crate) fn interrupt(&self) {
        for (number, end) in self.ends.iter().enumerate() {
            if let Some(pause) = self.system.hear(number) {
                end.schedule(msecs_to_jiffies(pause));
            }
        }
    }
}

#[kunit_tests(vfio_pamu_hearing)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit() {
        let mut pause = Pause::FIRST;
        let lengths = [10, 20, 40, 80, 160, 320, 640, 640, 640];
        assert_eq!(lengths.map(|_| pause.begin()), lengths);
    }

    #[test]
    fn only_a_quiet_pause_makes_the_next_one_short() {
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
