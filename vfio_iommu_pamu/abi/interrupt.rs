// SPDX-License-Identifier: GPL-2.0

//! The interrupt of access violations.

use kernel::{
    device::Core,
    irq::{
        Flags,
        ThreadedHandler,
        ThreadedRegistration, //
    },
    platform,
    prelude::*, //
};

/// Requests the first interrupt of the PAMUs. A thread calls `handler`.
pub(crate) fn violation_interrupt<'a, T: ThreadedHandler + 'a>(
    pdev: &'a platform::Device<Core<'_>>,
    handler: T,
) -> impl PinInit<ThreadedRegistration<'a, T>, Error> + 'a {
    let flags = Flags::SHARED | Flags::ONESHOT;
    // SAFETY: The registration becomes part of the driver's data, which the driver core drops.
    unsafe { pdev.request_threaded_irq_by_index(flags, 0, c"vfio_pamu", Ok::<T, Error>(handler)) }
}
