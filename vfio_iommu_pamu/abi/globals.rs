// SPDX-License-Identifier: GPL-2.0

//! Locks that there are one of each. [`init_globals`] makes them usable, before anything else.

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
    /// The PAMUs of this machine, if it has any.
    pub(crate) unsafe(uninit) static SYSTEM: Mutex<Option<Arc<System>>> = None;
}

global_lock! {
    /// The machine around the PAMUs, if they are software.
    pub(crate) unsafe(uninit) static MACHINE: Mutex<Option<Arc<Machine>>> = None;
}

global_lock! {
    /// The global utilities of this SoC, if it is one.
    pub(crate) unsafe(uninit) static GUTS: Mutex<Option<Arc<Guts>>> = None;
}

/// Makes the locks usable. The first thing that the module does.
pub(crate) fn init_globals() {
    // SAFETY: The module's init function calls this, once, before it does anything else.
    unsafe {
        SYSTEM.init();
        MACHINE.init();
        GUTS.init();
        super::routes::init();
    }
}
