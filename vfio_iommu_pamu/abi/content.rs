// SPDX-License-Identifier: GPL-2.0

//! What a container has in a window, as the hardware takes it.

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

/// The window of a LIODN for `content`; it is for one of `devices`, whose [`Space`] has the content.
///
/// [`Space`]: crate::windows::Space
///
/// # Errors
///
/// `ENODEV` if there is no such bank.
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
            // SAFETY: The pages are pinned, for writing if the device may write, and as many as the
            // window maps, by what `pin` promises. They stay until the content is dropped, which by
            // the type invariant of `Devices` is after the window was cleared for all of them.
            Ok(unsafe { Window::new(phys, 1 << content.order, access) })
        }
    }
}
