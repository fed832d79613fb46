// SPDX-License-Identifier: GPL-2.0

//! Log messages about failed calls that cannot return an error.

use kernel::prelude::*;

use kernel_ext::mm::may_warn;

/// Logs the error of a call that cannot return it. A guest can trigger this at will, so the
/// messages share one rate limit with those of all modules.
pub(crate) fn complain(what: &CStr, id: u32, error: Error) {
    if may_warn() {
        pr_warn!("cannot {} {}: {:?}\n", what, id, error);
    }
}
