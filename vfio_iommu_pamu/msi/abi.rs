// SPDX-License-Identifier: GPL-2.0

//! The doorbells of MSI banks.

use kernel::{
    device::property::FwNode,
    sync::Arc, //
};

use kernel_ext::firmware::platform_memory;

use crate::{
    paace::MIN_SIZE,
    tables::ContiguousPages, //
};

/// An MSI bank.
///
/// # Invariants
///
/// Devices may access the doorbell's page as long as this lives.
pub struct MsiBank {
    doorbell: u64,
    /// The page of the doorbell, if it is memory and not a register.
    _page: Option<Arc<ContiguousPages>>,
}

impl MsiBank {
    /// Returns a bank whose doorbell is the word at `offset` in the first page of `page`. The
    /// offset is less than 4096.
    pub fn in_memory(page: Arc<ContiguousPages>, offset: u64) -> Self {
        // INVARIANT: This keeps the memory allocated, and others may access it at any time.
        Self {
            doorbell: page.phys() + offset % MIN_SIZE,
            _page: Some(page),
        }
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
        // INVARIANT: The device tree says that this is the alias of a doorbell. The page of the
        // alias contains no other register, and a register is always there.
        Some(Self {
            doorbell,
            _page: None,
        })
    }

    /// Returns whether a message of the kernel's driver of the banks goes to the doorbell. That driver
    /// composes the address of the part of the system's registers as a PCI controller shows them,
    /// with the offset in the first MiB, where all doorbells are.
    #[cfg(CONFIG_PPC)]
    pub(super) fn has_message(&self, address: u64) -> bool {
        const OFFSET: u64 = (1 << 20) - 1;
        self.doorbell & OFFSET == address & OFFSET
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
