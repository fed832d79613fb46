// SPDX-License-Identifier: GPL-2.0

//! Charges kernel memory to the memory cgroup of a process other than the caller.
//!
//! C header: [`include/linux/memcontrol.h`](srctree/include/linux/memcontrol.h)

use core::ptr::NonNull;

use crate::bindings;

/// A memory cgroup.
///
/// # Invariants
///
/// `None` on a kernel without memory cgroups; otherwise a counted reference to the cgroup.
pub struct MemoryCgroup(Option<NonNull<bindings::mem_cgroup>>);

// SAFETY: References are counted by atomic operations, and any task may charge a cgroup.
unsafe impl Send for MemoryCgroup {}
// SAFETY: As above.
unsafe impl Sync for MemoryCgroup {}

impl MemoryCgroup {
    /// Returns the cgroup of the calling process. For a kernel thread this is the root cgroup.
    pub fn current() -> Self {
        // SAFETY: There are no requirements.
        let memcg = unsafe { bindings::kernel_ext_memcg_of_current() };
        // INVARIANT: The function returned a counted reference.
        Self(NonNull::new(memcg))
    }

    /// Calls `f` and charges its allocations with `GFP_KERNEL_ACCOUNT` to this cgroup.
    ///
    /// `f` runs in task context, not in interrupt context.
    pub fn charge<R>(&self, f: impl FnOnce() -> R) -> R {
        let Some(memcg) = self.0 else {
            return f();
        };
        // SAFETY: By the type invariant the cgroup stays valid during the call; afterwards the task
        // charges the former cgroup again.
        let former = unsafe { bindings::kernel_ext_set_active_memcg(memcg.as_ptr()) };
        let result = f();
        // SAFETY: The code that set the former cgroup keeps a reference to it until that setting is
        // undone.
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
