// SPDX-License-Identifier: GPL-2.0

//! The arguments of C functions about ids.

use kernel_ext::bindings;

use super::key::Key;
use crate::{
    gfp::Gfp,
    set::abi::{
        set_id,
        SetPtr, //
    }, //
};

/// Returns the key for an id in the C interface. The id must be in the set, unless the pointer is
/// null.
pub(crate) fn key_of(set: SetPtr, ioasid: u32) -> Key {
    Key::new((!set.is_null()).then(|| set_id(set)), ioasid)
}

/// Converts GFP flags. If reclaim is restricted in any way, as with `GFP_NOFS`, the allocation must
/// not sleep.
pub(crate) fn gfp_of(gfp: bindings::gfp_t) -> Gfp {
    let has = |bit: u32| gfp & (1 << bit) != 0;
    let reclaims = has(bindings::___GFP_DIRECT_RECLAIM_BIT)
        && has(bindings::___GFP_IO_BIT)
        && has(bindings::___GFP_FS_BIT);
    match (reclaims, has(bindings::___GFP_ACCOUNT_BIT)) {
        (false, _) => Gfp::Atomic,
        (true, false) => Gfp::Kernel,
        (true, true) => Gfp::KernelAccount,
    }
}
