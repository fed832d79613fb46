// SPDX-License-Identifier: GPL-2.0

//! Allocators and listeners that are implemented in C.

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
/// The structure and both of its functions are valid as long as this exists.
pub(super) struct AllocatorOps(*const bindings::ioasid_allocator_ops);

// SAFETY: By contract, C allocators can be called from any thread.
unsafe impl Send for AllocatorOps {}
// SAFETY: As above.
unsafe impl Sync for AllocatorOps {}

impl AllocatorOps {
    /// # Safety
    ///
    /// `ops` is valid and does not change until the result is dropped.
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
        // INVARIANT: By this function's contract and the checks above.
        Ok(Self(ops))
    }

    fn ops(&self) -> &bindings::ioasid_allocator_ops {
        // SAFETY: By the type invariant.
        unsafe { &*self.0 }
    }

    /// Returns the kind, which consists of both functions. Allocators with the same functions share
    /// ids.
    pub(super) fn kind(&self) -> Kind {
        let ops = self.ops();
        Kind::Functions(
            ops.alloc.map_or(0, |f| f as usize),
            ops.free.map_or(0, |f| f as usize),
        )
    }
}

impl Allocator for AllocatorOps {
    /// The C functions are not told whether the caller may sleep.
    fn alloc(&self, range: IdRange, _gfp: Gfp) -> Result<u32> {
        let ops = self.ops();
        let alloc = ops.alloc.ok_or(EINVAL)?;
        // SAFETY: The function is valid by the type invariant, and `pdata` is the argument that
        // belongs to it.
        match unsafe { alloc(range.first(), range.last(), ops.pdata) } {
            INVALID => Err(ENOSPC),
            id => Ok(id),
        }
    }

    fn free(&self, id: u32) {
        let ops = self.ops();
        if let Some(free) = ops.free {
            // SAFETY: The function is valid by the type invariant, and `pdata` is the argument that
            // belongs to it.
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

// SAFETY: By contract, notifiers can be called from any thread.
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
        // SAFETY: The block is valid by the type invariant, and the function expects these
        // arguments.
        unsafe {
            if let Some(call) = (*self.0).notifier_call {
                call(self.0, event as usize, (&raw mut args).cast());
            }
        }
    }
}
