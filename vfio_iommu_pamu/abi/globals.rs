// SPDX-License-Identifier: GPL-2.0

//! The global locks of the module. [`init_globals`] initializes them before anything else runs.

use kernel::{
    prelude::*,
    sync::{
        global_lock,
        Arc, //
    }, //
};

use crate::{
    mmio::Guts,
    software::Machine,
    system::System, //
};

global_lock! {
    /// The PAMUs of this machine, or `None`.
    pub(crate) unsafe(uninit) static SYSTEM: Mutex<Option<Arc<System>>> = None;
}

global_lock! {
    /// The machine that the software PAMUs belong to, or `None` if the PAMUs are not software.
    pub(crate) unsafe(uninit) static MACHINE: Mutex<Option<Arc<Machine>>> = None;
}

global_lock! {
    /// The global utilities of this SoC, or `None`.
    pub(crate) unsafe(uninit) static GUTS: Mutex<Option<Arc<Guts>>> = None;
}

/// Initializes the locks. The module calls it before it does anything else.
pub(crate) fn init_globals() {
    // SAFETY: The module's init function calls this once, before it does anything else.
    unsafe {
        SYSTEM.init();
        MACHINE.init();
        GUTS.init();
        super::routes::init();
    }
}
