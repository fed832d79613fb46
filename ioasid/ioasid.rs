// SPDX-License-Identifier: GPL-2.0

//! A system-wide allocator of I/O address space ids (PASIDs).
//!
//! A [`Space`] allocates numbers, each of which identifies an address space to devices. The caller
//! that allocates an id owns a [`Pasid`], and other users take a [`Reference`]. The number can be
//! reused when all of them have been dropped. A [`Set`] has a quota and an owner, and maps the
//! owner's own numbers to its ids.
//!
//! Ids come from the default allocator, which it reserves in the kernel's PASID space, or from a
//! custom [`Allocator`], for example the IOMMU of a guest.
//!
//! `Documentation/ioasid.rst` describes the rules, and `Documentation/locking.rst` the locks.

#![deny(unsafe_code)]

// The concepts. Each folder has an `abi.rs` if the concept has a C side or other unsafe code.
mod allocator; // custom allocators: the list, kinds, the hand-over between them
mod id; // ids: allocating, finding, referencing, freeing; keys, handles, states
mod notifier; // callbacks for events of ids
mod set; // sets: owners, quotas and their accounts
mod space; // a space: all of the above in one object; its capacity; the system's space
mod spid; // the numbers that the owner of a set uses for its ids
pub mod vcmd; // the allocator of a VT-d in a guest: virtual commands
pub mod virtio; // the allocator of a virtio-iommu: PASID requests

// The interfaces of the system's space.
mod debugfs;
#[allow(unsafe_code)]
mod exports;
#[allow(unsafe_code)]
#[path = "trace/abi.rs"]
mod trace;

// What the concepts are made of.
mod gfp; // allocation flags for C functions
#[allow(unsafe_code)]
#[path = "global_pasids/abi.rs"]
mod global_pasids; // the PASIDs that are reserved in the kernel
mod id_tree; // a tree of ids with lookups under RCU
#[allow(unsafe_code)]
#[path = "kmem_cache/abi.rs"]
mod kmem_cache;
#[allow(unsafe_code)]
#[path = "read_once/abi.rs"]
mod read_once;
mod srcu_list; // a list that is read under SRCU

#[cfg(CONFIG_KUNIT)]
mod tests;

use kernel::{
    fmt,
    prelude::*, //
};

use kernel_ext::mm::may_warn;

use global_pasids::GlobalPasids;
use space::KmemCaches;

pub use allocator::{
    Allocator,
    Registration, //
};
pub use gfp::Gfp;
pub use id::{
    handle::{
        Pasid,
        Reference, //
    },
    key::Key,
    range::{
        IdRange,
        INVALID, //
    },
    state::IdState, //
};
pub use notifier::{
    priority,
    Event,
    Notifier,
    NotifierArgs,
    NotifierRegistration,
    Scope, //
};
pub use set::{
    Quota,
    Set,
    SetId,
    Token, //
};
pub use space::{
    system,
    Space, //
};

kernel_ext::compat::module! {
    type: Module,
    name: "ioasid",
    authors: ["The VFIO in Rust authors"],
    description: "System-wide allocator of PASIDs (I/O address space ids)",
    license: "GPL v2",
    params: {
        kernel_share: u32 {
            default: 0x8000,
            description: "Number of PASIDs, from 0, that are left to the kernel for shared virtual addressing",
        },
        capacity: u32 {
            default: 0x100000,
            description: "End of the PASIDs that the module allocates, at most 2^20",
        },
    },
}

/// The module's registrations, dropped in the order of the fields.
struct Module {
    _files: debugfs::Files,
    _space: space::Installed,
}

impl kernel::Module for Module {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let first = module_parameters::kernel_share.value().max(1);
        let capacity = module_parameters::capacity.value();
        space::check_limits(first, capacity).inspect_err(|_| {
            pr_err!("capacity must be greater than kernel_share, and at most 2^20\n");
        })?;
        let pasids = GlobalPasids::take(first, capacity)?;
        let space = Space::new(&KmemCaches::new()?, first, capacity, Some(pasids));
        let space = space::Installed::new(KBox::pin_init(space, GFP_KERNEL)?);
        Ok(Self {
            _files: debugfs::Files::new()?,
            _space: space,
        })
    }
}

/// Logs that `what` failed, for callers that cannot return the error. A guest can trigger this at
/// will, so the messages share one rate limit with those of all modules.
fn warn_failed(what: fmt::Arguments<'_>, error: Error) {
    if may_warn() {
        pr_warn!("failed to {}: {:?}\n", what, error);
    }
}
