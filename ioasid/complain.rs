// SPDX-License-Identifier: GPL-2.0

//! Messages about calls that have no result.

use kernel::prelude::*;

use kernel_ext::mm::may_warn;

/// Says why something failed that its caller isn't told of. A guest may provoke that at will, so the
/// messages of all modules have one budget.
pub(crate) fn complain(what: &CStr, id: u32, error: Error) {
    if may_warn() {
        pr_warn!("cannot {} {}: {:?}\n", what, id, error);
    }
}
