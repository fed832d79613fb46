// SPDX-License-Identifier: GPL-2.0

//! Custom allocators that are implemented in C.

use kernel::prelude::*;

use kernel_ext::bindings;

use super::{
    Allocator,
    Kind, //
};
use crate::{
    gfp::Gfp,
    id::range::{
        IdRange,
        INVALID, //
    }, //
};

/// A `struct ioasid_allocator_ops`.
///
/// # Invariants
///
/// The structure and both of its functions are valid as long as this exists.
pub(crate) struct AllocatorOps(*const bindings::ioasid_allocator_ops);

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
    pub(crate) unsafe fn new(ops: *const bindings::ioasid_allocator_ops) -> Result<Self> {
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
    pub(crate) fn kind(&self) -> Kind {
        let ops = self.ops();
        Kind::Functions(
            ops.alloc.map_or(0, |f| f as usize),
            ops.free.map_or(0, |f| f as usize),
        )
    }
}

impl Allocator for AllocatorOps {
    /// The C functions do not know whether the caller may sleep.
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
