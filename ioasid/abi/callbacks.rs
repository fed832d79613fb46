// SPDX-License-Identifier: GPL-2.0

//! Allocators and listeners that are written in C.

use kernel::{
    ffi::c_void,
    prelude::*, //
};

use kernel_ext::{
    bindings,
    gfp::Gfp, //
};

use super::exports::set_pointer;
use crate::{
    notify::{
        Event,
        Notify,
        Subject, //
    },
    range::{
        IdRange,
        INVALID, //
    },
    source::{
        Allocator,
        Kind, //
    },
};

/// A `struct ioasid_allocator_ops`.
///
/// # Invariants
///
/// The structure, with both of its functions, is valid as long as this exists.
pub(super) struct AllocatorOps(*const bindings::ioasid_allocator_ops);

// SAFETY: C allocators are called from anywhere, by contract.
unsafe impl Send for AllocatorOps {}
// SAFETY: As above.
unsafe impl Sync for AllocatorOps {}

impl AllocatorOps {
    /// # Safety
    ///
    /// `ops` is valid and stays as it is until the result is dropped.
    ///
    /// # Errors
    ///
    /// `EINVAL` if one of its functions is missing.
    pub(super) unsafe fn new(ops: *const bindings::ioasid_allocator_ops) -> Result<Self> {
        // SAFETY: By this function's contract.
        let ops_ref = unsafe { ops.as_ref() }.ok_or(EINVAL)?;
        if ops_ref.alloc.is_none() || ops_ref.free.is_none() {
            return Err(EINVAL);
        }
        // INVARIANT: By this function's contract, and as was checked.
        Ok(Self(ops))
    }

    fn ops(&self) -> &bindings::ioasid_allocator_ops {
        // SAFETY: By the type invariant.
        unsafe { &*self.0 }
    }

    /// Both functions, which allocators that share ids have in common.
    pub(super) fn kind(&self) -> Kind {
        let ops = self.ops();
        Kind::Functions(
            ops.alloc.map_or(0, |f| f as usize),
            ops.free.map_or(0, |f| f as usize),
        )
    }
}

impl Allocator for AllocatorOps {
    /// C functions don't know whether the caller may sleep.
    fn alloc(&self, range: IdRange, _gfp: Gfp) -> Result<u32> {
        let ops = self.ops();
        let alloc = ops.alloc.ok_or(EINVAL)?;
        // SAFETY: The function is valid by the type invariant, and takes what it was given.
        match unsafe { alloc(range.first(), range.last(), ops.pdata) } {
            INVALID => Err(ENOSPC),
            id => Ok(id),
        }
    }

    fn free(&self, id: u32) {
        let ops = self.ops();
        if let Some(free) = ops.free {
            // SAFETY: The function is valid by the type invariant, and takes what it was given.
            unsafe { free(id, ops.pdata) }
        }
    }
}

/// A `struct notifier_block`.
///
/// # Invariants
///
/// The block and its function are valid as long as this exists.
pub(super) struct NotifierBlock(*mut bindings::notifier_block);

// SAFETY: Notifiers are called from anywhere, by contract.
unsafe impl Send for NotifierBlock {}
// SAFETY: As above.
unsafe impl Sync for NotifierBlock {}

impl NotifierBlock {
    /// # Safety
    ///
    /// `block` is valid until the result is dropped.
    pub(super) unsafe fn new(block: *mut bindings::notifier_block) -> Self {
        // INVARIANT: By this function's contract.
        Self(block)
    }
}

impl Notify for NotifierBlock {
    fn notify(&self, event: Event, subject: &Subject) {
        let mut args = bindings::ioasid_nb_args {
            id: subject.id,
            spid: subject.spid.unwrap_or(INVALID),
            set: set_pointer(subject.set),
            pdata: subject.data as *mut c_void,
        };
        // SAFETY: The block is valid by the type invariant; the function takes these arguments.
        unsafe {
            if let Some(call) = (*self.0).notifier_call {
                call(self.0, event as usize, (&raw mut args).cast());
            }
        }
    }
}
