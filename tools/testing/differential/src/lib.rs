// SPDX-License-Identifier: GPL-2.0

//! Sequences of requests to VFIO. A sequential model of a container predicts each result.
//!
//! A [`generator::Generator`] chooses the steps, a [`world::World`] executes them, and a
//! [`model::Model`] checks the results and keeps track of the state.
//!
//! The machine is that of the guest tests, with the driver that pins pages.

#![deny(unsafe_code)]

pub mod agent;
pub mod choices;
mod expect;
pub mod generator;
mod machine;
mod memory;
pub mod model;
mod request;
pub mod step;
pub mod trace;
pub mod world;

use std::{
    convert::Infallible,
    time::Duration, //
};
use support::machine::locked_kib;
use vfio_client::wait::until;

/// The time limit of [`settle`].
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until [`left`] returns `before`. The kernel releases some resources shortly after the last
/// close. Returns what is left.
pub fn settle(before: &str) -> String {
    let mut now = String::new();
    let Ok(_) = until(PATIENCE, || {
        now = left();
        Ok::<_, Infallible>(now == before)
    });
    now
}

/// Returns the locked memory and the module references that remain when everything is closed.
pub fn left() -> String {
    let (locked, references) = (locked_kib(), machine::module_references());
    format!("locked={locked} {references}")
}
