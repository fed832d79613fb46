// SPDX-License-Identifier: GPL-2.0

//! Charges locked memory to the process that requested it.
//!
//! Locked pages count against `RLIMIT_MEMLOCK` of a process and are shown as `VmLck`. The process
//! and its `mm` are needed again later, possibly by another process or after the first process has
//! exited. [`Owner`] holds references to both, without keeping the process's memory alive.

use kernel::{
    fmt,
    mm::{
        Mm,
        MmWithUser, //
    },
    page::PAGE_SHIFT,
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    },
    task::Task,
    warn_on, //
};

use crate::{
    bindings,
    task::{
        is_kernel_thread,
        Capability,
        TaskLabel, //
    }, //
};

use super::{
    may_warn,
    MemoryCgroup, //
};

/// A process that maps memory for devices, and its `mm`.
pub struct Owner {
    /// The `mm` that is charged; it may have no users any more.
    mm: ARef<Mm>,
    /// The process whose limit applies.
    task: ARef<Task>,
    /// Whether the process had `CAP_IPC_LOCK`, and hence no limit, when this value was created.
    exempt: bool,
    /// The memory cgroup of the process when this value was created.
    cgroup: MemoryCgroup,
}

impl Owner {
    /// Creates an owner for the calling process.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the caller is a kernel thread; `ENOMEM`.
    pub fn current() -> Result<Arc<Self>> {
        let current = kernel::current!();
        let mm: &Mm = current.mm().ok_or(ENODEV)?;
        Ok(Arc::new(
            Self {
                mm: mm.into(),
                task: current.group_leader().into(),
                exempt: Capability::IpcLock.held(),
                cgroup: MemoryCgroup::current(),
            },
            GFP_KERNEL_ACCOUNT,
        )?)
    }

    /// Returns whether the calling task belongs to a process with this `mm`. A kernel thread does
    /// not, even while it uses the `mm`: it can't be killed when it waits for a page.
    pub fn is_current(&self) -> bool {
        let current = kernel::current!();
        let same = |mm: &MmWithUser| mm.as_raw() == self.mm.as_raw();
        !is_kernel_thread() && current.mm().is_some_and(same)
    }

    /// Returns whether [`current`](Self::current) would create an equal value for the calling
    /// process. The process may have moved to another memory cgroup.
    pub fn describes_current(&self) -> bool {
        let current = kernel::current!();
        self.is_current()
            && core::ptr::eq(current.group_leader(), &*self.task)
            && self.exempt == Capability::IpcLock.held()
    }

    /// Returns the memory cgroup that pays for kernel memory used on behalf of the process.
    pub fn cgroup(&self) -> &MemoryCgroup {
        &self.cgroup
    }

    /// Returns the `mm`, unless the process has exited.
    pub fn memory(&self) -> Option<ARef<MmWithUser>> {
        self.mm.mmget_not_zero()
    }

    /// Returns the current `RLIMIT_MEMLOCK` of the process, in bytes.
    fn limit(&self) -> usize {
        // SAFETY: `task` is a counted reference, and the limits of a task outlive it.
        unsafe { bindings::kernel_ext_memlock_limit(self.task.as_ptr()) }
    }

    /// Changes `locked_vm` by `pages`: `account_locked_vm()`. The `mm` must have users.
    fn account(&self, pages: usize, add: bool) -> Result {
        // SAFETY: `mm` and `task` are counted references; the helper takes the mmap lock of `mm`.
        kernel::error::to_result(unsafe {
            bindings::kernel_ext_account_locked_vm(
                self.mm.as_raw(),
                pages,
                add,
                self.task.as_ptr(),
                self.exempt,
            )
        })
    }

    /// Returns the number of locked pages of the `mm`.
    fn locked(&self) -> usize {
        // SAFETY: `mm` is a counted reference, so the field exists.
        let locked = unsafe { &raw const (*self.mm.as_raw()).__bindgen_anon_1.locked_vm };
        // SAFETY: The field is valid. Other threads may write it concurrently; the value is only
        // displayed.
        unsafe { locked.read_volatile() }
    }

    /// Logs that `pages` can't be locked, the reason, and how to avoid the error. `charged` of
    /// these pages have already been charged.
    pub fn warn_limit(&self, pages: usize, charged: usize) {
        if may_warn() {
            pr_warn!(
                "{}: RLIMIT_MEMLOCK exceeded: {} KiB more needed, {} KiB locked, limit {} KiB; raise the limit or grant CAP_IPC_LOCK\n",
                TaskLabel::of(&self.task),
                kib(pages),
                kib(self.locked().saturating_sub(charged)),
                self.limit() >> 10,
            );
        }
    }
}

/// Returns the size of `pages` pages in KiB.
pub fn kib(pages: usize) -> usize {
    pages << (PAGE_SHIFT - 10)
}

/// Shows the process that is charged, and its limit.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (task, locked) = (TaskLabel::of(&self.task), kib(self.locked()));
        f.write_fmt(fmt!("{task}: {locked} KiB locked in all, "))?;
        if self.exempt {
            f.write_str("no limit (CAP_IPC_LOCK)")
        } else {
            f.write_fmt(fmt!("limit {} KiB", self.limit() >> 10))
        }
    }
}

/// Pages that are charged to an [`Owner`]; dropping it uncharges them.
///
/// # Invariants
///
/// `pages` have been added to the owner's count, and will be subtracted once.
pub struct Charge {
    owner: Arc<Owner>,
    pages: usize,
}

impl Charge {
    /// Creates a charge of no pages.
    #[inline]
    pub fn new(owner: Arc<Owner>) -> Self {
        // INVARIANT: There is nothing to subtract.
        Self { owner, pages: 0 }
    }

    /// Returns the owner.
    #[inline]
    pub fn owner(&self) -> &Arc<Owner> {
        &self.owner
    }

    /// Returns the number of charged pages.
    #[inline]
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Returns whether `other` is charged to the same owner.
    pub fn has_owner_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.owner, &other.owner)
    }

    /// Adds `other`, a charge to the same owner, to this charge.
    pub fn join(&mut self, mut other: Self) {
        if self.has_owner_of(&other) {
            // INVARIANT: The pages that `other` had to subtract are now subtracted by this value.
            self.pages += core::mem::take(&mut other.pages);
        }
    }

    /// Charges `pages` more pages.
    ///
    /// # Errors
    ///
    /// `ENOMEM` above the limit, with a log message; `EINTR` if the task is being killed; `ESRCH`
    /// if the owner has exited.
    pub fn add(&mut self, pages: usize) -> Result {
        self.try_add(pages).inspect_err(|e| {
            if *e == ENOMEM {
                self.owner.warn_limit(pages, 0);
            }
        })
    }

    /// Like [`add`](Self::add), but without a log message.
    ///
    /// # Errors
    ///
    /// Those of [`add`](Self::add).
    pub fn try_add(&mut self, pages: usize) -> Result {
        if pages == 0 {
            return Ok(());
        }
        let _users = self.owner.memory().ok_or(ESRCH)?;
        self.owner.account(pages, true)?;
        // INVARIANT: `account` added them to the owner's count.
        self.pages += pages;
        Ok(())
    }

    /// Uncharges `pages` pages, or all of them if fewer are charged.
    ///
    /// If the owner has exited, its count is gone and is not changed.
    #[inline]
    pub fn sub(&mut self, pages: usize) {
        let pages = pages.min(self.pages);
        if pages != 0 {
            self.uncharge(pages);
        }
    }

    /// Uncharges `pages` pages, at most as many as are charged.
    fn uncharge(&mut self, pages: usize) {
        // INVARIANT: Each page is subtracted once, here.
        self.pages -= pages;
        if let Some(_users) = self.owner.memory() {
            // Subtracting does not fail.
            warn_on!(self.owner.account(pages, false).is_err());
        }
    }
}

impl Drop for Charge {
    #[inline]
    fn drop(&mut self) {
        self.sub(self.pages);
    }
}
