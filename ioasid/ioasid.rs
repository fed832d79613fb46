// SPDX-License-Identifier: GPL-2.0

//! I/O address space ids (PASIDs), for the whole system.
//!
//! A [`Space`] hands out numbers, each of which names an address space to devices. Whoever
//! allocates one owns a [`Pasid`], others take a [`Reference`]; the number is reused when all of
//! them are gone. A [`Set`] has a quota and an owner, and knows what the owner calls its ids.
//!
//! Ids come from the module's own space, which it takes out of the kernel's, or from an
//! [`Allocator`] of somebody else, such as the IOMMU of a guest.
//!
//! `Documentation/ioasid.rst` has the rules; locks are in `Documentation/locking.rst`.

#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod abi;
mod account;
mod debugfs;
mod entry;
#[cfg(CONFIG_KUNIT)]
mod host;
mod life;
mod notify;
mod pasid;
mod range;
mod roster;
mod set;
mod source;
mod space;
mod state;
#[cfg(CONFIG_KUNIT)]
mod tests;
pub mod vcmd;
pub mod virtio;

use kernel::prelude::*;
use kernel_ext::iommu::pasid::GlobalPasids;

pub use abi::system::system;
pub use notify::{
    priority,
    Event,
    Notify,
    Scope,
    Subject, //
};
pub use pasid::{
    Pasid,
    Reference, //
};
pub use range::{
    IdRange,
    DEFAULT_CAPACITY,
    INVALID, //
};
pub use set::{
    Quota,
    Set,
    Token, //
};
pub use source::Allocator;
pub use space::{
    Memory,
    Registration,
    Space, //
};
pub use state::State;

module! {
    type: Module,
    name: "ioasid",
    authors: ["The VFIO in Rust authors"],
    description: "System-wide allocator of I/O address space ids",
    license: "GPL v2",
    params: {
        kernel_share: u32 {
            default: 0x8000,
            description: "PASIDs below this one stay with the kernel, for shared virtual addressing",
        },
        capacity: u32 {
            default: 0x100000,
            description: "PASIDs are below this number",
        },
    },
}

/// The module's registrations, undone from top to bottom.
struct Module {
    _files: debugfs::Files,
    _space: abi::system::Installed,
}

impl kernel::Module for Module {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let first = module_parameters::kernel_share.value().max(1);
        let capacity = module_parameters::capacity.value();
        if first >= capacity || capacity == INVALID {
            pr_err!("capacity must be more than kernel_share\n");
            return Err(EINVAL);
        }
        let pasids = GlobalPasids::take(first, capacity.min(DEFAULT_CAPACITY))?;
        let space = Space::new(&Memory::new()?, first, capacity, Some(pasids));
        let space = abi::system::Installed::new(KBox::pin_init(space, GFP_KERNEL)?);
        Ok(Self {
            _files: debugfs::Files::new()?,
            _space: space,
        })
    }
}
