// SPDX-License-Identifier: GPL-2.0

//! What the calling task may do.
//!
//! C header: [`include/linux/capability.h`](srctree/include/linux/capability.h)

use kernel::ffi::c_int;

use crate::bindings;

/// A capability that VFIO asks for.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Capability {
    /// `CAP_SYS_RAWIO`: needed for devices that no IOMMU confines.
    SysRawio = bindings::CAP_SYS_RAWIO,
    /// `CAP_IPC_LOCK`: exempts from the limit on locked memory.
    IpcLock = bindings::CAP_IPC_LOCK,
    /// `CAP_SYS_ADMIN`: shows physical addresses.
    SysAdmin = bindings::CAP_SYS_ADMIN,
}

impl Capability {
    /// Whether the calling task holds the capability in the initial user namespace.
    pub fn held(self) -> bool {
        // SAFETY: `capable` looks at `current` only.
        unsafe { bindings::capable(self as c_int) }
    }
}
