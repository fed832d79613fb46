// SPDX-License-Identifier: GPL-2.0

//! The unsafe code of this module: access to memory by its physical address.

#![expect(unsafe_code)]

mod content;
mod exports;
mod globals;
mod interrupt;
mod memory;
pub(crate) mod routes;
mod window;

pub(crate) use content::window_of;
pub(crate) use globals::{
    init_globals,
    GUTS,
    MACHINE,
    SYSTEM, //
};
pub(crate) use interrupt::violation_interrupt;
pub(crate) use memory::{
    phys_of,
    Contiguous,
    Physical, //
};
pub(crate) use window::Window;
