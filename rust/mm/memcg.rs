// SPDX-License-Identifier: GPL-2.0

//! Charging kernel memory to the memory cgroup of a process that isn't the calling one.
//!
//! C header: [`include/linux/memcontrol.h`](srctree/include/linux/memcontrol.h)

use core::ptr::NonNull;

use crate::bindings;

/// A memory cgroup.
///
/// # Invariants
///
/// `None` on a kernel without memory cgroups; otherwise there is a counted reference to it.
pub struct MemoryCgroup(Option<NonNull<bindings::mem_cgroup>>);

// SAFETY: References are counted by atomic operations, and any task may charge a cgroup.
unsafe impl Send for MemoryCgroup {}
// SAFETY: As above.
unsafe impl Sync for MemoryCgroup {}

impl MemoryCgroup {
    /// The cgroup of the calling process. That of a kernel thread is the root.
    pub fn current() -> Self {
        // SAFETY: There are no requirements.
        let memcg = unsafe { bindings::kernel_ext_memcg_of_current() };
        // INVARIANT: The function has counted a reference.
        Self(NonNull::new(memcg))
    }

    /// Calls `f`, whose allocations with `GFP_KERNEL_ACCOUNT` are charged to this cgroup.
    ///
    /// `f` runs in a task, not in an interrupt.
    pub fn charge<R>(&self, f: impl FnOnce() -> R) -> R {
        let Some(memcg) = self.0 else {
            return f();
        };
        // SAFETY: By the type invariant the cgroup stays for the call; afterwards the task charges the
        // former one again.
        let former = unsafe { bindings::kernel_ext_set_active_memcg(memcg.as_ptr()) };
        let result = f();
        // SAFETY: Whoever has set the former one keeps it until it is set back.
        unsafe { bindings::kernel_ext_set_active_memcg(former) };
        result
    }
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        if let Some(memcg) = self.0 {
            // SAFETY: By the type invariant.
            unsafe { bindings::kernel_ext_memcg_put(memcg.as_ptr()) };
        }
    }
}
