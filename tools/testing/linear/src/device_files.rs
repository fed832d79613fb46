// SPDX-License-Identifier: GPL-2.0

//! Device files, groups and iommufds: who may use a device, and which address space it is in.
//!
//! The requests of this kind of run do not map memory for devices; they open, bind, attach and
//! close. The [`model`] knows which of them exclude each other, in every order.

pub mod files;
pub mod model;
pub mod op;
pub mod plan;
