// SPDX-License-Identifier: GPL-2.0

//! Linearizability of a VFIO type 1 container.
//!
//! Several threads of two processes send requests to one container at once. Each request is an
//! [`history::Entry`]: what was asked, when it was sent, when it returned, and what it returned.
//! The [`checker`] looks for an order of the requests which respects these times and in which the
//! [`model`], a sequential container, gives the same answers. Where there is none, [`shrink`] finds a
//! short part of the history that has none either.
//!
//! A request of the model is one atomic step. Where the C modules are known to do it in several, or
//! answer differently, [`defects`] says so.

#![deny(unsafe_code)]

pub mod checker;
pub mod defects;
pub mod history;
pub mod model;
pub mod op;
pub mod plan;
pub mod shrink;
