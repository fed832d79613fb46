// SPDX-License-Identifier: GPL-2.0

//! Converts the content of a window of a container to the window that is set in the hardware.

use kernel::prelude::*;

use crate::{
    container::Devices,
    memory::Memory,
    msi::Bank,
    paace::Access,
    windows::{
        self,
        Target, //
    },
};

use super::{
    phys_of,
    Window, //
};

/// Returns the window to set in a LIODN for `content`. The LIODN is one of `devices`, and the
/// [`Space`] of `devices` holds the content.
///
/// [`Space`]: crate::windows::Space
///
/// # Errors
///
/// `ENODEV` if the bank doesn't exist.
pub(crate) fn window_of(
    _devices: &Devices,
    content: &windows::Window<Memory>,
    banks: &[Bank],
) -> Result<Window> {
    let access = Access::from(content.prot);
    match &content.target {
        Target::Bank { bank, .. } => {
            let bank = banks.get(*bank as usize).ok_or(ENODEV)?;
            Ok(Window::of_doorbell(bank, access))
        }
        Target::Memory(memory) => {
            let phys = phys_of(memory.run.frame());
            // SAFETY: By the contract of `pin` the pages are pinned (for writing if the device may
            // write), and they are as many as the window maps. They stay pinned until the content
            // is dropped. By the type invariant of `Devices` that is after the window was cleared
            // for all LIODNs.
            Ok(unsafe { Window::new(phys, 1 << content.order, access) })
        }
    }
}
