// SPDX-License-Identifier: GPL-2.0

//! A userspace NVMe driver over VFIO, as a library.
//!
//! Registers and commands follow the NVM Express Base Specification, revision 1.4.

#![forbid(unsafe_code)]

pub mod command;
pub mod controller;
pub mod fault;
mod identify;
mod kernel_log;
pub mod picture;
pub mod prp;
mod queue;
pub mod reader;
mod registers;
pub mod report;
pub mod session;
