// SPDX-License-Identifier: GPL-2.0

//! Charging locked memory to the process that asked for it.
//!
//! Locked pages count against `RLIMIT_MEMLOCK` of a process and show as `VmLck` of its memory. Both
//! must be found again later, from another process or after the first one has gone: [`Owner`] keeps
//! what is needed for that, without keeping the process's memory alive.

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
    capability::Capability,
    task::TaskLabel, //
};

use super::may_warn;

/// A process that maps memory for devices, and its memory.
pub struct Owner {
    /// The memory that is charged; its users may be gone.
    mm: ARef<Mm>,
    /// The process, for its limit.
    task: ARef<Task>,
    /// Whether it was exempt from the limit when it first asked.
    exempt: bool,
}

impl Owner {
    /// The calling process.
    ///
    /// # Errors
    ///
    /// `ENODEV` for a kernel thread, `ENOMEM`.
    pub fn current() -> Result<Arc<Self>> {
        let current = kernel::current!();
        let mm: &Mm = current.mm().ok_or(ENODEV)?;
        Ok(Arc::new(
            Self {
                mm: mm.into(),
                task: current.group_leader().into(),
                exempt: Capability::IpcLock.held(),
            },
            GFP_KERNEL_ACCOUNT,
        )?)
    }

    /// Whether the calling task uses this memory.
    pub fn is_current(&self) -> bool {
        let current = kernel::current!();
        current
            .mm()
            .is_some_and(|mm| mm.as_raw() == self.mm.as_raw())
    }

    /// Whether this value says all of the calling process that [`current`](Self::current) would.
    pub fn describes_current(&self) -> bool {
        let current = kernel::current!();
        self.is_current()
            && core::ptr::eq(current.group_leader(), &*self.task)
            && self.exempt == Capability::IpcLock.held()
    }

    /// The memory, unless the process has exited.
    pub fn memory(&self) -> Option<ARef<MmWithUser>> {
        self.mm.mmget_not_zero()
    }

    /// The process limit on locked memory now, in bytes.
    fn limit(&self) -> usize {
        // SAFETY: `task` is a counted reference, and limits outlive the task that they are of.
        unsafe { bindings::kernel_ext_memlock_limit(self.task.as_ptr()) }
    }

    /// Adds to or takes from the count of locked pages. The memory has users.
    fn account(&self, pages: usize, add: bool) -> Result {
        // SAFETY: `mm` and `task` are counted references; the helper takes the lock of the former.
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

    /// How many pages of the memory are locked.
    fn locked(&self) -> usize {
        // SAFETY: `mm` is a counted reference, so the field is there.
        let locked = unsafe { &raw const (*self.mm.as_raw()).__bindgen_anon_1.locked_vm };
        // SAFETY: The field is valid. Others may write it now; the value is for people only.
        unsafe { locked.read_volatile() }
    }

    /// Tells in the log why `pages` can't be locked, of which `charged` were charged meanwhile, and what to do.
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

/// The size of `pages`, in KiB.
pub fn kib(pages: usize) -> usize {
    pages << (PAGE_SHIFT - 10)
}

/// Who is charged, and the limit.
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

/// Pages that count as locked by an [`Owner`]; dropping it takes them off again.
///
/// # Invariants
///
/// `pages` have been added to the owner's count, and will be taken off once.
pub struct Charge {
    owner: Arc<Owner>,
    pages: usize,
}

impl Charge {
    /// A charge of nothing yet.
    pub fn new(owner: Arc<Owner>) -> Self {
        // INVARIANT: Nothing to take off.
        Self { owner, pages: 0 }
    }

    /// The owner.
    pub fn owner(&self) -> &Arc<Owner> {
        &self.owner
    }

    /// The number of pages charged.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Whether `other` is charged to the same owner.
    pub fn has_owner_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.owner, &other.owner)
    }

    /// Takes in `other`, a charge to the same owner.
    pub fn join(&mut self, mut other: Self) {
        if self.has_owner_of(&other) {
            // INVARIANT: What `other` has to take off is for this value to take off now.
            self.pages += core::mem::take(&mut other.pages);
        }
    }

    /// Charges `pages` more.
    ///
    /// # Errors
    ///
    /// `ENOMEM` over the limit (and then a line in the log), `EINTR` if the task is being killed,
    /// `ESRCH` if the owner's memory is gone.
    pub fn add(&mut self, pages: usize) -> Result {
        self.try_add(pages).inspect_err(|e| {
            if *e == ENOMEM {
                self.owner.warn_limit(pages, 0);
            }
        })
    }

    /// As [`add`](Self::add), without a line in the log.
    ///
    /// # Errors
    ///
    /// As for [`add`](Self::add).
    pub fn try_add(&mut self, pages: usize) -> Result {
        if pages == 0 {
            return Ok(());
        }
        let _users = self.owner.memory().ok_or(ESRCH)?;
        self.owner.account(pages, true)?;
        // INVARIANT: They were added just now.
        self.pages += pages;
        Ok(())
    }

    /// Takes `pages` off, or all if there are less.
    ///
    /// When the owner has exited there is nothing to take them off from.
    pub fn sub(&mut self, pages: usize) {
        let pages = pages.min(self.pages);
        if pages == 0 {
            return;
        }
        // INVARIANT: Each page is taken off once, here.
        self.pages -= pages;
        if let Some(_users) = self.owner.memory() {
            // Taking off does not fail.
            warn_on!(self.owner.account(pages, false).is_err());
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.sub(self.pages);
    }
}
