// SPDX-License-Identifier: GPL-2.0

//! Sequences of requests to VFIO, with what a sequential model of a container expects of each.
//!
//! A [`generator::Generator`] chooses the steps, a [`world::World`] does them, and a [`model::Model`]
//! judges what came back and keeps the sequence where it is interesting.
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

/// What is left of all that was done, when nothing is open any more.
pub fn left() -> String {
    let (locked, references) = (machine::locked(), machine::module_references());
    format!("locked={locked} {references}")
}
