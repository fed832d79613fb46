// SPDX-License-Identifier: GPL-2.0

//! Helpers that several test suites use.

use crate::{
    pamu::Pamu,
    system::System, //
};

/// Returns a PAMU of a system.
pub fn pamu(system: &System, number: usize) -> &dyn Pamu {
    &*system.pamus()[number]
}

/// Disables a PAMU of a system, which stays registered.
pub fn disable(system: &System, number: usize) {
    pamu(system, number).disable();
}

/// Enables a PAMU of a system again.
pub fn enable(system: &System, number: usize) {
    system.pamus().enable(number);
}
