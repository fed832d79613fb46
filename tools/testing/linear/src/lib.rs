// SPDX-License-Identifier: GPL-2.0

//! Linearizability of a VFIO type 1 container.
//!
//! Several threads of two processes send requests to one container concurrently. Each request is an
//! [`history::Entry`]: the request, the times at which it was sent and returned, and its answer.
//! The [`checker`] searches for an order of the requests that respects these times and in which the
//! [`model`], a sequential container, gives the same answers. If there is none, [`shrink`] finds a
//! short part of the history that has none either.
//!
//! A request of the model is one atomic step. [`defects`] lists the requests that the C modules
//! execute in several steps or answer differently.
//!
//! [`device_files`] has the requests, the model and the plans of a second kind of run: it opens,
//! binds, attaches and closes device files and groups.

#![deny(unsafe_code)]

pub mod checker;
pub mod defects;
pub mod device_files;
pub mod history;
pub mod model;
pub mod op;
pub mod plan;
pub mod shrink;
