// SPDX-License-Identifier: GPL-2.0

//! Capabilities of the calling task.
//!
//! C header: [`include/linux/capability.h`](srctree/include/linux/capability.h)

use kernel::ffi::c_int;

use crate::bindings;

/// A capability that VFIO checks.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Capability {
    /// `CAP_SYS_RAWIO`: required for devices without IOMMU protection.
    SysRawio = bindings::CAP_SYS_RAWIO,
    /// `CAP_IPC_LOCK`: exempts from the limit on locked memory.
    IpcLock = bindings::CAP_IPC_LOCK,
    /// `CAP_SYS_ADMIN`: permits reading physical addresses.
    SysAdmin = bindings::CAP_SYS_ADMIN,
}

impl Capability {
    /// Returns whether the calling task has the capability in the initial user namespace.
    pub fn held(self) -> bool {
        // SAFETY: `capable` only looks at `current`.
        unsafe { bindings::capable(self as c_int) }
    }
}
