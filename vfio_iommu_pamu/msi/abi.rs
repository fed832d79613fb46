// SPDX-License-Identifier: GPL-2.0

//! The doorbells of MSI banks.

use kernel::device::property::FwNode;

use kernel_ext::firmware::platform_memory;

use crate::paace::MIN_SIZE;

/// An MSI bank.
///
/// # Invariants
///
/// Devices may write to the doorbell's page as long as the [`System`](crate::system::System) with
/// this bank lives.
#[derive(Clone, Copy, Debug)]
pub struct MsiBank {
    doorbell: u64,
}

impl MsiBank {
    /// Returns the bank with the doorbell at this physical address.
    ///
    /// # Safety
    ///
    /// Devices may write to the page that contains the doorbell as long as the
    /// [`System`](crate::system::System) with this bank lives.
    pub unsafe fn new(doorbell: u64) -> Self {
        // INVARIANT: By the contract of this function.
        Self { doorbell }
    }

    /// Returns the bank that a node of the device tree describes, if it describes one.
    ///
    /// The second memory region of the node is the alias of the doorbell, in a page of its own.
    pub(crate) fn of_node(node: &FwNode) -> Option<Self> {
        let is_bank = [c"fsl,mpic-msi", c"fsl,mpic-msi-v4.3"]
            .iter()
            .any(|name| node.property_match_string(c"compatible", name).is_ok());
        if !is_bank {
            return None;
        }
        let doorbell = platform_memory(node, 1)?;
        // SAFETY: The device tree says that this is the alias of a doorbell. The page of the alias
        // contains no other register, and a register is always there.
        Some(unsafe { Self::new(doorbell) })
    }

    /// Returns the physical address of the doorbell's page.
    pub(crate) fn page(&self) -> u64 {
        self.doorbell - self.offset()
    }

    /// Returns the offset of the doorbell in its page.
    pub fn offset(&self) -> u64 {
        self.doorbell % MIN_SIZE
    }
}
