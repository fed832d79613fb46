// SPDX-License-Identifier: GPL-2.0

//! The interrupt of access violations, and the global utilities of this SoC.

use kernel::{
    device::Core,
    irq::{
        Flags,
        ThreadedHandler,
        ThreadedRegistration, //
    },
    platform,
    prelude::*,
    sync::{
        global_lock,
        Arc, //
    }, //
};

use super::guts::Guts;

global_lock! {
    /// The global utilities of this SoC, or `None`.
    pub(super) unsafe(uninit) static GUTS: Mutex<Option<Arc<Guts>>> = None;
}

/// Initializes the lock of the global utilities.
///
/// # Safety
///
/// This function wasn't called before, and [`GUTS`](static@GUTS) wasn't used before.
pub(crate) unsafe fn init() {
    // SAFETY: By the contract of this function.
    unsafe { GUTS.init() };
}

/// Requests the first interrupt of the PAMUs. A thread calls `handler`.
pub(super) fn violation_interrupt<'a, T: ThreadedHandler + 'a>(
    pdev: &'a platform::Device<Core<'_>>,
    handler: T,
) -> impl PinInit<ThreadedRegistration<'a, T>, Error> + 'a {
    let flags = Flags::SHARED | Flags::ONESHOT;
    // SAFETY: The registration becomes part of the driver's data, which the driver core drops.
    unsafe { pdev.request_threaded_irq_by_index(flags, 0, c"vfio_pamu", Ok::<T, Error>(handler)) }
}
