// SPDX-License-Identifier: GPL-2.0

//! A system-wide allocator of I/O address space ids (PASIDs).
//!
//! A [`Space`] allocates numbers, each of which identifies an address space to devices. The caller
//! that allocates an id owns a [`Pasid`], and other users take a [`Reference`]. The number can be
//! reused when all of them have been dropped. A [`Set`] has a quota and an owner, and maps the
//! owner's own numbers to its ids.
//!
//! Ids come from the module's own space, which it reserves in the kernel's PASID space, or from a
//! custom [`Allocator`], for example the IOMMU of a guest.
//!
//! `Documentation/ioasid.rst` describes the rules, and `Documentation/locking.rst` the locks.

#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod abi;
mod account;
mod complain;
mod debugfs;
mod entry;
#[cfg(CONFIG_KUNIT)]
mod host;
mod key;
mod life;
mod notify;
mod pasid;
mod range;
mod roster;
mod set;
mod set_id;
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
pub use key::Key;
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
pub use set_id::SetId;
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

/// The module's registrations, dropped in the order of the fields.
struct Module {
    _files: debugfs::Files,
    _space: abi::system::Installed,
}

impl kernel::Module for Module {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let first = module_parameters::kernel_share.value().max(1);
        let capacity = module_parameters::capacity.value();
        check_limits(first, capacity).inspect_err(|_| {
            pr_err!("capacity must be more than kernel_share, and 2^20 at most\n");
        })?;
        let pasids = GlobalPasids::take(first, capacity)?;
        let space = Space::new(&Memory::new()?, first, capacity, Some(pasids));
        let space = abi::system::Installed::new(KBox::pin_init(space, GFP_KERNEL)?);
        Ok(Self {
            _files: debugfs::Files::new()?,
            _space: space,
        })
    }
}

/// Checks that there can be PASIDs from `first` to `capacity - 1`.
///
/// # Errors
///
/// `EINVAL` if the range is empty or ends above 20 bits, which the kernel does not support.
fn check_limits(first: u32, capacity: u32) -> Result {
    if first >= capacity || capacity > DEFAULT_CAPACITY {
        return Err(EINVAL);
    }
    Ok(())
}

#[kunit_tests(ioasid_limits)]
mod limits {
    use super::*;

    #[test]
    fn no_more_than_there_are() {
        for capacity in [0x8001, DEFAULT_CAPACITY - 1, DEFAULT_CAPACITY] {
            assert_eq!(check_limits(0x8000, capacity), Ok(()));
        }
        for capacity in [0, 1, 0x8000, DEFAULT_CAPACITY + 1, INVALID - 1, INVALID] {
            assert_eq!(check_limits(0x8000, capacity), Err(EINVAL));
        }
    }
}
